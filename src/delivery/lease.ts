/**
 * Who delivers to which appservice (architecture.md, "Several routers").
 *
 * Every replica computes the same wish from the same live replicas: of all replicas, the one whose hash with the
 * appservice is highest. A replica that comes or goes moves only the appservices it gets or had. The wish is carried
 * out by compare-and-set of the stored holder, so two replicas that disagree for a moment do no harm.
 */
import type { AppserviceState } from '../store/port.ts';

/** The replica that ought to deliver; undefined if none lives. `liveReplicaIds` in any order. */
export function wantedHolder(serverName: string, appserviceId: string, liveReplicaIds: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestScore = -1;
  for (const replicaId of liveReplicaIds) {
    const score = hash32(`${replicaId}\u0000${serverName}\u0000${appserviceId}`);
    if (score < bestScore || (score === bestScore && best !== undefined && best < replicaId)) continue;
    best = replicaId;
    bestScore = score;
  }
  return best;
}

/**
 * Whether this replica is to become the holder, in a new epoch, of an appservice that no sender here has. It is if the
 * holder is gone and the appservice is its own; and if it is the holder already, which then knows nothing of it: what a
 * sender before may still have under way is fenced by the new epoch. `liveReplicaIds` must have been told after `state`
 * was read: otherwise a holder that came in between looks as if it were gone, and delivers at the same time.
 */
export function mayTake(state: AppserviceState, replicaId: string, liveReplicaIds: readonly string[]): boolean {
  const { leaseHolder } = state;
  if (leaseHolder === replicaId) return true;
  if (leaseHolder !== null && liveReplicaIds.includes(leaseHolder)) return false;
  return wantedHolder(state.serverName, state.appserviceId, liveReplicaIds) === replicaId;
}

/** FNV-1a over UTF-16 units with a final mix, so that ids which differ in one character spread. */
function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
