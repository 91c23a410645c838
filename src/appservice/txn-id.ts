/**
 * Txn ids: decimal integers, strictly growing per appservice. The wall clock in microseconds is their floor, so that an
 * id does not come back with other content after the store was lost or restored from an older copy (R57).
 */

/** The id after `lastTxnId` ("0" before the first) at wall clock `nowMs`. */
export function nextTxnId(lastTxnId: string, nowMs: number): string {
  const next = BigInt(lastTxnId) + 1n;
  const floor = BigInt(Math.max(0, Math.trunc(nowMs))) * 1000n;
  return (next > floor ? next : floor).toString();
}
