/** A piece of a homeserver's transaction as ingest takes it: without stream positions, told apart by ids. */
import { deviceKeysBytes } from './appservice/device-extensions.ts';
import type { OtherItems, ParsedSubmission } from './ingest/submission.ts';
import { seenIdOf } from './ingest/seen-ids.ts';
import type { RoomFinding, TransactionPiece } from './ingress/ports.ts';

/**
 * What has no event id is told apart by its bytes and its transaction's id for so long, at the least, and twice as long at
 * the most. A homeserver's ids may begin anew, and then the same may well mean something new.
 */
const REST_SPAN_MS = 600_000;

export function submissionFromPiece({ events, ephemeral, toDevice, deviceLists, deviceKeys, restDigest }: TransactionPiece, nowMs: number): ParsedSubmission {
  let bytes = 0;
  for (const { json } of events) bytes += json.byteLength;
  const count = ephemeral.length + toDevice.length + deviceLists.length + deviceKeys.length;
  const span = Math.floor(nowMs / REST_SPAN_MS);
  const restIds = restDigest === null ? undefined : ([seenIdOf(`${restDigest} ${span}`), seenIdOf(`${restDigest} ${span - 1}`)] as const);
  const submission = {
    stream: '',
    events: events.map((event) => ({ event, streamPosition: 0 })),
    rooms: [],
    ids: { events: events.map(({ eventId }) => seenIdOf(eventId)), others: restIds },
    bytes,
  };
  if (count === 0) return submission;
  for (const { json } of [...ephemeral, ...toDevice]) bytes += json.byteLength;
  for (const { userId } of deviceLists) bytes += userId.length;
  for (const keys of deviceKeys) bytes += deviceKeysBytes(keys);
  const others: OtherItems = {
    ephemeral: ephemeral.map((event) => ({ event, roomIds: [], streamPosition: 0 })),
    toDevice: toDevice.map((message) => ({ ...message, streamPosition: 0 })),
    deviceLists: deviceLists.map((change) => ({ ...change, roomIds: [], streamPosition: 0 })),
    deviceKeys,
    roomIds: [...new Set(ephemeral.flatMap((event) => (event.kind === 'presence' ? [] : [event.roomId])))],
    count,
  };
  return { ...submission, others, bytes };
}

/** What was looked up of rooms, alone: it holds from before the next submission. */
export function submissionFromFindings(findings: readonly RoomFinding[]): ParsedSubmission {
  const rooms = findings.map(({ roomId, localMembers, localAliases, partialMembers }) => ({ roomId, localMembers, localAliases, partialBefore: partialMembers }));
  const bytes = findings.reduce((sum, { localMembers, localAliases }) => sum + [...(localMembers ?? []), ...(localAliases ?? [])].reduce((length, identifier) => length + identifier.length, 0), 0);
  return { stream: '', events: [], rooms, bytes };
}
