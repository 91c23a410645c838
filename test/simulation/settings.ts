/**
 * How long things take. With the times of production a seed of thirty minutes is 50,000 polls
 * of three idle processes, which find nothing. `compressed` stretches every interval of the routers by ten, and leaves the
 * traffic and the faults as they are, so that the same thirty minutes hold as many collisions in a tenth of the polls.
 */
import { DELIVERY_DEFAULTS } from '../../src/delivery/delivery.ts';
import type { DeliverySettings } from '../../src/delivery/delivery.ts';
import { UPKEEP_DEFAULTS } from '../../src/homeserver.ts';
import type { HomeserverLimits } from '../../src/homeserver.ts';
import { PRESENCE_DEFAULTS } from '../../src/delivery/replica-presence.ts';
import { UNKNOWN_USERS_LIMITS } from '../../src/query/unknown-users.ts';

/** As service.ts has it. */
const CLOCKS_APART_MAX_MS = 120_000;

export type Pace = 'compressed' | 'production';

export interface SimulationSettings {
  readonly presence: { readonly intervalMs: number; readonly ttlMs: number; readonly marginMs: number };
  readonly delivery: DeliverySettings;
  readonly homeserver: HomeserverLimits;
  readonly unknownUsers: typeof UNKNOWN_USERS_LIMITS;
  readonly storeTimeoutMs: number;
}

/** `retentionMs` is null where one router has the store to itself: then nothing is kept, and all that is there may be replayed. */
export function settingsOf(pace: Pace, retentionMs: number | null): SimulationSettings {
  const scale = pace === 'production' ? 1 : 10;
  const delivery: DeliverySettings = {
    ...DELIVERY_DEFAULTS,
    eventsMax: 5,
    toDeviceMax: 3,
    bytesMax: 1_500,
    backoff: { firstMs: 2_000, maxMs: 100_000 },
    storeRetry: { firstMs: 100, maxMs: 5_000 },
    pollIntervalMs: DELIVERY_DEFAULTS.pollIntervalMs * scale * 1.5,
    statesMax: 4,
    replayAgeMaxMs: retentionMs ?? Infinity,
    answerTimeoutMs: DELIVERY_DEFAULTS.answerTimeoutMs * scale,
  };
  return {
    presence: { intervalMs: PRESENCE_DEFAULTS.intervalMs * scale, ttlMs: PRESENCE_DEFAULTS.ttlMs * scale, marginMs: PRESENCE_DEFAULTS.marginMs * scale },
    delivery,
    homeserver: {
      ledger: {
        groupRoutedMax: 12,
        groupEventsMax: 8,
        groupBytesMax: 1_000_000,
        queueItemsMax: 20,
        queueBytesMax: 1_000_000,
        retryDelayMs: 1_000,
        answerTimeoutMs: 2_000 * scale,
        catchUpIntervalMs: 250 * scale,
        readSegmentsMax: 7,
        readBytesMax: 1_000_000,
        streamsMax: 100,
      },
      // Little, so that what is live is read back from the store now and then, and rooms are forgotten.
      recentBytesMax: 12_000,
      roomsMax: 5,
      dirtyRoomsMax: 6,
      upkeep: { intervalMs: UPKEEP_DEFAULTS.intervalMs * scale * 1.5, checkpointIntervalMs: UPKEEP_DEFAULTS.checkpointIntervalMs * scale, trimIntervalMs: UPKEEP_DEFAULTS.trimIntervalMs * scale },
      retentionMs: retentionMs === null ? 0 : retentionMs + CLOCKS_APART_MAX_MS,
      ephemeralAgeMaxMs: delivery.ephemeralAgeMaxMs,
    },
    unknownUsers: { ...UNKNOWN_USERS_LIMITS, intervalMs: UNKNOWN_USERS_LIMITS.intervalMs * scale },
    storeTimeoutMs: 3_000 * scale,
  };
}
