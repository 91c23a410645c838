/**
 * A homeserver's client for one stream: submits in pieces of changing size, and after every failure submits again what
 * was not acknowledged, to another router. As a homeserver should, it never passes over anything, and it asks for the
 * router's position now and then instead of trusting its own.
 */
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { RouterClient } from '../support/router-client.ts';
import { errorOf } from '../support/router-client.ts';
import { pause } from './child.ts';
import type { EventSource, TrafficEvent } from './traffic.ts';

export interface HomeserverOptions {
  readonly source: EventSource;
  /** Clients of all routers, of which some may be down. */
  readonly clients: () => readonly RouterClient[];
  readonly chance: () => number;
  /** Told of every event before it is first submitted. */
  readonly submitting: (event: TrafficEvent) => void;
  readonly fault: (text: string) => void;
  readonly eventsPerCallMax: number;
  readonly pauseMs: number;
  readonly deadlineMs: number;
}

const UNACKNOWLEDGED_MAX = 60;
const RETRY_DELAY_MS = 40;
const ASKS_SHARE = 0.3;
/** Codes of which a homeserver knows that it may try again: cancelled, deadline, resource, unavailable. */
const RETRIED: ReadonlySet<number> = new Set([1, 4, 8, 14]);

export class Homeserver {
  readonly #options: HomeserverOptions;
  /** From the position after `#acknowledged` on. */
  #waiting: TrafficEvent[] = [];
  #acknowledged = 0;
  #client = 0;
  #isPaused = false;
  #isStopped = false;
  #running: Promise<void> = Promise.resolve();
  /** Calls by the code of their answer. */
  readonly answers = new Map<number, number>();

  constructor(options: HomeserverOptions) {
    this.#options = options;
    this.#client = Math.floor(options.chance() * 100);
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Makes nothing new until {@link resume}; goes on submitting what there is. */
  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
  }

  get isDone(): boolean {
    return this.#isPaused && this.#waiting.length === 0;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    const { source, chance, eventsPerCallMax, submitting, pauseMs } = this.#options;
    while (!this.#isStopped) {
      if (!this.#isPaused && this.#waiting.length < UNACKNOWLEDGED_MAX) {
        for (let count = 1 + Math.floor(chance() * eventsPerCallMax); count > 0; count--) {
          const event = source.next();
          submitting(event);
          this.#waiting.push(event);
        }
      }
      const isFine = this.#waiting.length === 0 || (await this.#submit());
      await pause(isFine ? pauseMs * 2 * chance() : RETRY_DELAY_MS);
    }
  }

  /** Whether the call was answered well. */
  async #submit(): Promise<boolean> {
    const { clients, chance, source, fault, deadlineMs, eventsPerCallMax } = this.#options;
    const all = clients();
    const client = all[this.#client % all.length];
    if (client === undefined) return false;
    const count = Math.min(this.#waiting.length, 1 + Math.floor(chance() * eventsPerCallMax * 2));
    const events = this.#waiting.slice(0, count).map(({ text }, at) => ({ json: Buffer.from(text), streamPosition: BigInt(this.#acknowledged + at + 1) }));
    try {
      if (this.#client > 0 && chance() < ASKS_SHARE * 0.2) {
        const { streamPosition } = await client.call(AppserviceRouter.method.getStreamPosition, { stream: source.stream }, deadlineMs);
        if (Number(streamPosition) < this.#acknowledged) fault(`I11 Monotone: ${source.stream} was acknowledged through ${this.#acknowledged}, and GetStreamPosition says ${streamPosition}`);
      }
      const { streamPosition, accepted, duplicates } = await client.call(AppserviceRouter.method.submitEvents, { stream: source.stream, events }, deadlineMs);
      this.#count(0);
      if (Number(streamPosition) < this.#acknowledged + count) fault(`I7 IdempotentIngest: ${source.stream} was answered ${streamPosition} for a submission through ${this.#acknowledged + count}`);
      if (accepted + duplicates !== count) fault(`I7 IdempotentIngest: of ${count} events ${accepted} were accepted and ${duplicates} duplicates`);
      this.#waiting = this.#waiting.slice(count);
      this.#acknowledged += count;
      return true;
    } catch (error) {
      const { code, message } = errorOf(error);
      this.#count(code);
      if (!RETRIED.has(code)) fault(`a call of ${source.stream} ended with code ${code}: ${message}`);
      this.#client++;
      return false;
    }
  }

  #count(code: number): void {
    this.answers.set(code, (this.answers.get(code) ?? 0) + 1);
  }
}
