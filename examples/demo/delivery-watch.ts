/** What the router tells of deliveries, live, from the call of {@link watchDeliveries} on. */
import type { Client } from '@connectrpc/connect';
import type { AppserviceAdmin, WatchEventsResponse } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';

type Told = WatchEventsResponse['event'];

export interface DeliveryWatch {
  /** Events in transactions that the appservice acknowledged. */
  readonly deliveredEvents: number;
  /** Attempts that did not deliver. */
  readonly failedAttempts: number;
  /** Resolves as soon as it holds. Rejects if the router ends the watch. */
  until(holds: (watch: DeliveryWatch) => boolean): Promise<void>;
}

export function watchDeliveries(admin: Client<typeof AppserviceAdmin>, appserviceId: string): DeliveryWatch {
  const answers = admin.watchEvents({ appserviceIds: [appserviceId] })[Symbol.asyncIterator]();
  const watch = {
    deliveredEvents: 0,
    failedAttempts: 0,
    async until(holds: (watch: DeliveryWatch) => boolean): Promise<void> {
      while (!holds(watch)) {
        const result = await next;
        if (result.done === true) throw new Error('the router ended the watch');
        next = answers.next();
        // Rejects where it is waited for, which may be later or never.
        next.catch(() => undefined);
        count(result.value.event);
      }
    },
  };
  const count = (event: Told): void => {
    if (event.case === 'eventsDelivered') watch.deliveredEvents += event.value.eventCount;
    if (event.case === 'deliveryFailed') watch.failedAttempts += 1;
  };
  let next = answers.next();
  next.catch(() => undefined);
  return watch;
}
