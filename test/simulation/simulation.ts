/**
 * One seed: half an hour of virtual time with three routers (one in ten has one), twelve appservices and a homeserver, in three parts:
 *
 *   0 … 1 min     the routers start, the registrations are put
 *   1 … 20 min    traffic, with everything going wrong that the seed has in store
 *   20 … 30 min   peace: whatever was broken works again; everything owed must arrive
 *
 * Then the checker looks at the history. The same seed gives the same history, to the last hash.
 */
import { Appservices } from './appservices.ts';
import { Chance } from './chance.ts';
import { breachesOf } from './checker.ts';
import type { Breach } from './checker.ts';
import { Chaos } from './chaos.ts';
import { Cluster } from './cluster.ts';
import { History } from './history.ts';
import { HomeserverClient } from './homeserver-client.ts';
import { Kernel } from './kernel.ts';
import { Operators } from './operators.ts';
import { APPSERVICE_IDS } from './registrations.ts';
import { ROOM_COUNT, StreamWriter } from './rooms.ts';
import { settingsOf } from './settings.ts';
import type { Pace } from './settings.ts';
import { SimStore } from './sim-store.ts';
import type { StoreWeather } from './store-link.ts';

export const MINUTE = 60_000;
export const TROUBLE_MS = 1 * MINUTE;
export const PEACE_MS = 20 * MINUTE;
export const END_MS = 30 * MINUTE;
const REPLICA_COUNT = 3;
const SKEW_MS_MAX = 5_000;
/** Longer than any router is away. */
const RETENTION_MS = 240_000;

export interface SimulationOptions {
  readonly pace?: Pace;
  /** Keeps what happened as text. */
  readonly traced?: boolean;
}

export interface Outcome {
  readonly seed: number;
  readonly breaches: readonly Breach[];
  readonly hash: string;
  readonly history: History;
  readonly happeningCount: number;
}

export async function simulate(seed: number, options: SimulationOptions = {}): Promise<Outcome> {
  const chance = new Chance(seed);
  const kernel = new Kernel();
  const history = new History(kernel, options.traced === true);
  // One seed in ten is of one router with a store of its own, as with SQLite, which keeps nothing that everybody is past.
  const isExclusive = seed % 10 === 0;
  const settings = settingsOf(options.pace ?? 'compressed', isExclusive ? null : RETENTION_MS);
  const store = new SimStore(history);
  const weather: StoreWeather = { faultRate: 0, slowRate: 0, isDown: false, cutOff: new Set(), callTimeoutMs: settings.storeTimeoutMs };
  const appservices = new Appservices(APPSERVICE_IDS, kernel, history, chance.fork('appservices'));
  const cluster = new Cluster({ kernel, chance: chance.fork('cluster'), history, settings, store, weather, appservices, isExclusive, placeCount: isExclusive ? 1 : REPLICA_COUNT, skewMsMax: SKEW_MS_MAX, wakeRate: chance.pick([0, 0.5, 0.9, 1]) });
  const numbers = { next: 1 };
  const rooms = Array.from({ length: ROOM_COUNT }, (_, at) => at);
  const writers = [0, 1, 2].map((at) => new StreamWriter(`s${at}`, rooms.filter((room) => room % 3 === at), chance.fork(`stream ${at}`), numbers));
  writers.push(new StreamWriter('to_device', [], chance.fork('stream to_device'), numbers));
  const picking = chance.fork('picking');
  const replica = (): ReturnType<Cluster['someReplica']> => cluster.someReplica(picking);
  const clients = writers.map((writer) => new HomeserverClient({ writer, kernel, history, replica, chance: chance.fork(`client ${writer.stream}`) }));
  const operators = new Operators({ kernel, chance: chance.fork('operators'), history, store, replica });
  const chaos = new Chaos({ kernel, chance: chance.fork('chaos'), history, cluster, weather, appservices, operators, writers, clients, isExclusive });

  for (const place of cluster.places) kernel.after(place.number * 500, () => cluster.launch(place));
  kernel.after(5_000, () => operators.begin());
  kernel.after(TROUBLE_MS, () => chaos.begin(PEACE_MS));
  kernel.after(PEACE_MS, () => chaos.end());
  await kernel.run(END_MS);
  const breaches = breachesOf({ history, store, writers, clients, calm: chaos.calm, troubleMs: TROUBLE_MS, peaceMs: PEACE_MS });
  return { seed, breaches, hash: history.hash, history, happeningCount: kernel.happeningCount };
}
