/**
 * What operators see of one appservice's delivery. Times are wall clock milliseconds.
 */
import type { DeliveryState } from '../appservice/delivery-state.ts';
import type { AppserviceState, AttemptFailure } from '../store/port.ts';
import type { RegistrationInForce } from './ports.ts';

export interface AppserviceStatus {
  readonly appserviceId: string;
  readonly state: DeliveryState;
  readonly paused: boolean;
  readonly deliveredLogPosition: number;
  readonly backlogEntries: number;
  readonly backlogBytes: number;
  readonly oldestEntryTimeMs: number | null;
  readonly transaction: {
    readonly txnId: string;
    readonly eventCount: number;
    readonly attemptCount: number;
    /** 0 unless it waits for it. */
    readonly nextAttemptTimeMs: number;
  } | null;
  /** Why nothing is sent although something waits, when that is by somebody's word. */
  readonly heldBy: 'no_url' | 'paused' | 'parked' | null;
  readonly quarantinedEntries: number;
  /** The replica that delivers to it; null while none does. */
  readonly leaseHolder: string | null;
  readonly lastError: { readonly kind: string; readonly httpStatus: number | null; readonly message: string; readonly timeMs: number } | null;
  readonly deliveredEntries: number;
  readonly attempts: number;
  readonly failedAttempts: number;
}

/** What waits, counted. */
export interface BacklogFigures {
  readonly entries: number;
  readonly bytes: number;
  readonly oldestTimeMs: number | null;
}

const NOTHING_WAITS: BacklogFigures = { entries: 0, bytes: 0, oldestTimeMs: null };

export interface StatusParts {
  readonly stored: AppserviceState;
  readonly inForce: RegistrationInForce | undefined;
  readonly backlog: BacklogFigures;
  /** As of this moment, where the sender is here; as stored otherwise. */
  readonly visibleState: DeliveryState;
  readonly trouble: AttemptFailure | null;
}

export function statusOf({ stored, inForce, backlog: waiting, visibleState, trouble }: StatusParts): AppserviceStatus {
  const { transaction } = stored;
  // What is routed to one that was stopped is given up as it comes.
  const backlog = stored.deliveryState === 'failed' ? NOTHING_WAITS : waiting;
  const waits = backlog.entries > 0 || transaction !== null;
  return {
    appserviceId: stored.appserviceId,
    state: visibleState,
    paused: stored.paused,
    deliveredLogPosition: stored.deliveredPosition,
    backlogEntries: backlog.entries,
    backlogBytes: backlog.bytes,
    oldestEntryTimeMs: backlog.oldestTimeMs,
    transaction:
      transaction === null
        ? null
        : {
            txnId: transaction.txnId,
            eventCount: transaction.entryCount,
            attemptCount: transaction.attemptCount,
            nextAttemptTimeMs: visibleState === 'retrying' ? transaction.nextAttemptTimeMs : 0,
          },
    heldBy: waits ? heldBy(stored, inForce) : null,
    quarantinedEntries: stored.quarantinedEntries,
    leaseHolder: stored.leaseHolder,
    lastError: trouble ?? stored.lastFailure,
    deliveredEntries: stored.deliveredEntries,
    attempts: stored.attempts,
    failedAttempts: stored.failedAttempts,
  };
}

/** False for an id without a registration and without a parked queue: to callers there is no such appservice. */
export function isKnown(inForce: RegistrationInForce | undefined): boolean {
  return inForce !== undefined && (inForce.registration !== null || inForce.backlog === 'park');
}

export function heldBy(stored: AppserviceState, inForce: RegistrationInForce | undefined): AppserviceStatus['heldBy'] {
  if (stored.parked || inForce?.registration === null) return 'parked';
  if (stored.paused) return 'paused';
  return inForce !== undefined && (inForce.registration.url === null || inForce.registration.url === '') ? 'no_url' : null;
}
