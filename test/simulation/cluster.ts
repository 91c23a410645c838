/**
 * The router processes: so many places, each with one incarnation after the other. One that dies or cannot start is
 * started again by whoever watches over it.
 */
import { StoreError } from '../../src/store/errors.ts';
import type { Chance } from './chance.ts';
import type { Kernel } from './kernel.ts';
import { Replica } from './replica.ts';
import type { ReplicaOptions } from './replica.ts';
import { RouterProcess } from './router-process.ts';
import type { StoreChange } from './sim-store.ts';

export interface ClusterOptions extends Omit<ReplicaOptions, 'process' | 'chance' | 'diesAt'> {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly placeCount: number;
  /** Share of the hints of the store that arrive. */
  readonly wakeRate: number;
  /** How far wall clocks are off, at most. */
  readonly skewMsMax: number;
}

export interface Place {
  readonly number: number;
  process: RouterProcess | null;
  /** Null while it starts. */
  replica: Replica | null;
  isEnding: boolean;
}

const START_MS = 1_700_000_000_000;

export class Cluster {
  readonly places: readonly Place[];
  /** Chance that a process dies at a step of a call. */
  deathRate = 0;
  /** No deaths at calls beyond this. */
  deathsLeft = 0;
  readonly #options: ClusterOptions;
  #names = 0;

  constructor(options: ClusterOptions) {
    this.#options = options;
    options.store.changed = (change) => this.#wake(change);
    this.places = Array.from({ length: options.placeCount }, (_, number) => ({ number, process: null, replica: null, isEnding: false }));
  }

  launch(place: Place): void {
    const { kernel, chance, history, skewMsMax } = this.#options;
    const process = new RouterProcess(`p${++this.#names}`, kernel, { startMs: START_MS, skewMs: chance.between(-skewMsMax, skewMsMax), rate: chance.between(0.995, 1.005) });
    place.process = process;
    place.replica = null;
    place.isEnding = false;
    history.note('start', process.name, `place ${place.number}`);
    process.arrives(() => {
      Replica.start({ ...this.#options, process, chance, diesAt: (dying, point) => this.#diesAt(dying, point) }).then(
        (replica) => {
          if (place.process !== process) return;
          place.replica = replica;
          history.note('ready', process.name, replica.presence.replicaId);
        },
        (error: unknown) => {
          if (!(error instanceof StoreError)) history.breach(`no bugs: ${process.name} cannot start: ${String(error)}`, [process.name]);
          history.note('start failed', process.name, String(error));
          this.#gone(place, process, 5_000);
        },
      );
    });
  }

  /** As kill -9; it is started again after a while. */
  kill(place: Place, downMs: number, why = 'kill'): void {
    const { process } = place;
    if (process === null || process.isDead) return;
    this.#options.history.note(why, process.name, '');
    this.#gone(place, process, downMs);
  }

  /** As SIGTERM. */
  end(place: Place, downMs: number): void {
    const { process, replica } = place;
    if (process === null || replica === null || place.isEnding || process.isStopped) return;
    place.isEnding = true;
    this.#options.history.note('end', process.name, '');
    process.arrives(() => {
      replica.end().then(
        () => this.#gone(place, process, downMs),
        (error: unknown) => {
          this.#options.history.breach(`no bugs: ${process.name} cannot end: ${String(error)}`, [process.name]);
          this.#gone(place, process, downMs);
        },
      );
    });
  }

  /** As SIGSTOP, and SIGCONT after a while. */
  stop(place: Place, forMs: number): void {
    const { process } = place;
    const { kernel, history } = this.#options;
    if (process === null || process.isDead || process.isStopped) return;
    process.stop();
    history.note('stopped', process.name, '');
    kernel.after(forMs, () => {
      if (process.isDead) return;
      history.note('goes on', process.name, '');
      process.goOn();
    });
  }

  /** Some replica that seems to take calls; undefined if none does. */
  someReplica(chance: Chance): Replica | undefined {
    const ready = this.places.flatMap(({ replica, isEnding }) => (replica === null || isEnding ? [] : [replica]));
    return ready.length === 0 ? undefined : chance.pick(ready);
  }

  /** A hint to each: it may be lost, late or doubled. */
  #wake(change: StoreChange): void {
    const { kernel, chance, wakeRate } = this.#options;
    for (const { replica } of this.places) {
      if (replica === null || !chance.is(wakeRate)) continue;
      const delayMs = chance.is(0.9) ? chance.between(0.3, 5) : chance.between(5, 15_000);
      kernel.after(delayMs, () => replica.process.arrives(() => replica.hear(change)));
      if (chance.is(0.05)) kernel.after(2 * delayMs, () => replica.process.arrives(() => replica.hear(change)));
    }
  }

  #diesAt(process: RouterProcess, point: string): boolean {
    if (this.deathRate === 0 || this.deathsLeft === 0 || process.isDead || !this.#options.chance.is(this.deathRate)) return false;
    const place = this.places.find((one) => one.process === process);
    if (place === undefined) return false;
    this.deathsLeft--;
    this.kill(place, this.#options.chance.between(100, 60_000), `dies ${point}`);
    return true;
  }

  #gone(place: Place, process: RouterProcess, downMs: number): void {
    if (place.process !== process) return;
    process.kill();
    place.process = null;
    place.replica = null;
    this.#options.kernel.after(downMs, () => this.launch(place));
  }
}
