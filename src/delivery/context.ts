/**
 * What all senders of one homeserver share.
 */
import type { BackoffLimits } from '../appservice/backoff.ts';
import type { DomainEventSink } from '../appservice/domain-event.ts';
import type { TransactionLimits } from '../appservice/transaction.ts';
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { OperatorRecordStore } from '../store/port.ts';
import type { DeliveredTransactions } from './delivered-transactions.ts';
import type { Pacer } from './pacer.ts';
import type { DeliveryMeter, Push, RegistrationSource, RouteReader } from './ports.ts';
import type { ReplicaPresence } from './replica-presence.ts';
import type { StoreRetryOptions } from './store-retry.ts';

export interface DeliveryLimits extends TransactionLimits {
  readonly backoff: BackoffLimits;
  /** Ephemeral entries that wait longer are left out. */
  readonly ephemeralAgeMaxMs: number;
}

export interface DeliveryContext {
  readonly serverName: string;
  readonly store: Pick<OperatorRecordStore, 'changeRecord'>;
  readonly routes: RouteReader;
  readonly registrations: RegistrationSource;
  readonly push: Push;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: DeliveryMeter;
  readonly events: DomainEventSink;
  readonly presence: Pick<ReplicaPresence, 'isPresent' | 'lapseCount'>;
  readonly limits: DeliveryLimits;
  readonly pacer: Pacer;
  readonly deliveredTransactions: DeliveredTransactions;
  readonly storeRetry: StoreRetryOptions;
  /** The backlog of some appservice must be counted anew. */
  measureSoon(): void;
  /** The sender of this appservice has found its lease lost and has ended. */
  leaseLost(appserviceId: string): void;
}
