/** Tells a caller what became of its submission, and counts it. */
import type { SubmissionVerdict } from './group-router.ts';
import type { SubmissionItem } from './queue.ts';

export interface SubmissionMeter {
  submitted(accepted: number, duplicates: number, routed: number): void;
}

/** Before anything else is routed, so that nothing behind a refused submission of its call is taken over; the answers may come later. */
export function tellPlaces(items: readonly SubmissionItem[], verdicts: readonly SubmissionVerdict[]): void {
  for (const [at, { submission }] of items.entries()) {
    const refusal = verdicts[at]?.refusal ?? null;
    if (refusal !== null) submission.place?.refuse(refusal);
  }
}

export function answerSubmission(item: SubmissionItem, verdict: SubmissionVerdict | undefined, logPosition: number, meter: SubmissionMeter): void {
  if (verdict === undefined) throw new Error('a submission has no verdict');
  const { refusal, ...rest } = verdict;
  if (refusal !== null) return item.refuse(refusal);
  meter.submitted(rest.accepted, rest.duplicates, rest.routed);
  item.settle({ ...rest, logPosition });
}
