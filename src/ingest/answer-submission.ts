/** Tells a caller what became of its submission, and counts it. */
import type { SubmissionVerdict } from './group-router.ts';
import type { SubmissionItem } from './queue.ts';

export interface SubmissionMeter {
  submitted(accepted: number, duplicates: number, routed: number): void;
}

export function answerSubmission(item: SubmissionItem, verdict: SubmissionVerdict | undefined, logPosition: number, meter: SubmissionMeter): void {
  if (verdict === undefined) throw new Error('a submission has no verdict');
  const { refusal, ...rest } = verdict;
  if (refusal !== null) return item.refuse(refusal);
  meter.submitted(rest.accepted, rest.duplicates, rest.routed);
  item.settle({ ...rest, logPosition });
}
