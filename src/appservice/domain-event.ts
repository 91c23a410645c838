/**
 * What happens in the domain, as WatchEvents, the metrics and the log tell it (contract section 2, M8).
 * Field names are the wire's.
 */
import type { DeliveryState } from './delivery-state.ts';

export type DomainEvent =
  | { readonly kind: 'events_delivered'; readonly service_id: string; readonly transaction_id: string; readonly event_count: number }
  | { readonly kind: 'delivery_failed'; readonly service_id: string; readonly transaction_id: string; readonly retry_count: number }
  | { readonly kind: 'state_changed'; readonly service_id: string; readonly state: DeliveryState; readonly paused: boolean }
  /** An appservice said that the user, or the alias, exists. */
  | { readonly kind: 'user_provisioned'; readonly service_id: string; readonly user_id: string }
  | { readonly kind: 'alias_provisioned'; readonly service_id: string; readonly alias: string }
  /** More of what the appservice was asked failed than may; `error_rate` is a share from 0 to 1 (M12). */
  | { readonly kind: 'escalation'; readonly service_id: string; readonly error_rate: number };

/** A domain event of one homeserver at a time. */
export interface DomainEventRecord {
  readonly serverName: string;
  readonly timeMs: number;
  readonly event: DomainEvent;
}

/** Where domain events go. Never blocks and never throws. */
export interface DomainEventSink {
  emit(record: DomainEventRecord): void;
}
