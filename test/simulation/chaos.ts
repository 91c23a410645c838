/**
 * What goes wrong in a seed, and when. Each seed has a temper of its own: some have hardly anything but bad appservices,
 * some everything at once.
 */
import type { Appservices } from './appservices.ts';
import { MOODS } from './appservices.ts';
import type { Chance } from './chance.ts';
import type { Cluster } from './cluster.ts';
import type { History } from './history.ts';
import type { HomeserverClient } from './homeserver-client.ts';
import type { Kernel } from './kernel.ts';
import type { Operators } from './operators.ts';
import { APPSERVICE_IDS } from './registrations.ts';
import type { StreamWriter } from './rooms.ts';
import type { StoreWeather } from './store-link.ts';

export interface ChaosOptions {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly history: History;
  readonly cluster: Cluster;
  readonly weather: StoreWeather;
  readonly appservices: Appservices;
  readonly operators: Operators;
  readonly writers: readonly StreamWriter[];
  readonly clients: readonly HomeserverClient[];
  readonly isExclusive: boolean;
}

/** What stayed without trouble in this seed, so that delays there have no excuse. */
export interface Calm {
  /** The store and the routers were never in trouble. */
  readonly routers: boolean;
  /** These appservices were always well, and no operator touched them. */
  readonly appserviceIds: readonly string[];
}

const OUTAGE_MS_MAX = 60_000;
const STOP_MS_MAX = 80_000;
/** Longer than a process is stopped and a command may take. */
const LATE_COMMAND_MS = 150_000;

export class Chaos {
  readonly calm: Calm;
  readonly #options: ChaosOptions;
  readonly #busyness: number;
  #isPeace = false;

  constructor(options: ChaosOptions) {
    this.#options = options;
    const { chance } = options;
    this.#busyness = chance.between(0.5, 1.5);
    const isCalm = chance.is(0.15) && !options.isExclusive;
    this.calm = { routers: isCalm, appserviceIds: isCalm ? [chance.pick(APPSERVICE_IDS), chance.pick(APPSERVICE_IDS)] : [] };
  }

  begin(untilMs: number): void {
    const { chance, weather, cluster } = this.#options;
    this.#traffic();
    this.#often(chance.between(8_000, 30_000), () => this.#mood());
    if (chance.is(0.9)) this.#often(chance.between(20_000, 120_000), () => this.#options.operators.act(this.#touchable));
    if (this.calm.routers) {
      // Restarts that are planned well are no trouble.
      if (chance.is(0.5)) this.#often(chance.between(150_000, 400_000), () => this.#roll());
      return;
    }
    weather.faultRate = chance.pick([0, 0.005, 0.02, 0.08]);
    weather.slowRate = chance.pick([0, 0, 0.005, 0.02]);
    cluster.deathRate = chance.pick([0, 0.0005, 0.002, 0.01]);
    cluster.deathsLeft = chance.below(8);
    if (chance.is(0.6)) this.#often(chance.between(120_000, 500_000), () => cluster.kill(chance.pick(cluster.places), chance.between(100, 90_000)));
    if (chance.is(0.5)) this.#often(chance.between(150_000, 500_000), () => cluster.stop(chance.pick(cluster.places), chance.between(1_000, STOP_MS_MAX)));
    if (chance.is(0.4)) this.#often(chance.between(200_000, 600_000), () => cluster.end(chance.pick(cluster.places), chance.between(100, 60_000)));
    if (chance.is(0.4)) this.#often(chance.between(200_000, 600_000), () => this.#outage());
    if (chance.is(0.4)) this.#often(chance.between(200_000, 600_000), () => this.#cut());
    if (this.#options.kernel.nowMs > untilMs) throw new Error('trouble begins after peace');
  }

  /** From here on everything works. */
  end(): void {
    const { weather, cluster, appservices, operators, history, kernel } = this.#options;
    history.note('peace', '', '');
    this.#isPeace = true;
    weather.faultRate = 0;
    weather.slowRate = 0;
    weather.isDown = false;
    weather.cutOff.clear();
    cluster.deathRate = 0;
    for (const appservice of appservices.all.values()) appservice.mood = 'well';
    operators.setRight();
    // What operators asked for before may take effect after.
    kernel.after(LATE_COMMAND_MS, () => operators.setRight());
    this.#poke();
  }

  get #touchable(): string[] {
    return APPSERVICE_IDS.filter((id) => !this.calm.appserviceIds.includes(id));
  }

  /** Again and again at chance times, until there is peace. */
  #often(everyMs: number, use: () => void): void {
    const { kernel, chance } = this.#options;
    kernel.after(everyMs * chance.between(0.1, 1.9), () => {
      if (this.#isPeace) return;
      use();
      this.#often(everyMs, use);
    });
  }

  #traffic(): void {
    const { chance, writers } = this.#options;
    for (const writer of writers) {
      const everyMs = chance.between(90_000, 360_000) / this.#busyness;
      this.#often(everyMs, () => {
        const count = chance.is(0.8) ? 1 + chance.below(3) : 5 + chance.below(12);
        for (let at = 0; at < count; at++) writer.grow();
        this.#poke();
      });
    }
  }

  #poke(): void {
    for (const client of this.#options.clients) client.poke();
  }

  #mood(): void {
    const { chance, appservices, history } = this.#options;
    const appservice = appservices.get(chance.pick(this.#touchable));
    appservice.mood = chance.is(0.4) ? 'well' : chance.pick(MOODS);
    history.note('mood', appservice.id, appservice.mood);
  }

  /** One router ends and comes again, while the others are there. */
  #roll(): void {
    const { cluster, chance } = this.#options;
    if (cluster.places.every(({ replica, isEnding }) => replica !== null && !isEnding)) cluster.end(chance.pick(cluster.places), chance.between(100, 30_000));
  }

  #outage(): void {
    const { weather, kernel, chance, history } = this.#options;
    if (weather.isDown) return;
    weather.isDown = true;
    history.note('store', 'all', 'down');
    kernel.after(chance.between(1_000, OUTAGE_MS_MAX), () => {
      weather.isDown = false;
      history.note('store', 'all', 'up');
    });
  }

  #cut(): void {
    const { weather, kernel, chance, history, cluster } = this.#options;
    const { process } = chance.pick(cluster.places);
    if (process === null || weather.cutOff.has(process.name)) return;
    weather.cutOff.add(process.name);
    history.note('store', process.name, 'cut off');
    kernel.after(chance.between(1_000, OUTAGE_MS_MAX), () => {
      weather.cutOff.delete(process.name);
      history.note('store', process.name, 'reached again');
    });
  }
}
