/**
 * A homeserver that submits one room's life and loses nothing: it resumes at the router's position after every failure,
 * as a homeserver should.
 */
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { RouterClient } from './router-client.ts';
import { eventJson } from './routing.ts';

export class Submitter {
  /** Ids of the events, in stream order; position = index + 1. */
  readonly eventIds: string[] = [];
  /** How many of them the router has acknowledged. */
  acknowledged = 0;
  readonly #events: Uint8Array[] = [];
  readonly #stream: string;

  constructor(stream: string) {
    this.#stream = stream;
  }

  add(fields: Parameters<typeof eventJson>[0]): void {
    this.eventIds.push(fields.id);
    this.#events.push(eventJson(fields));
  }

  get isDone(): boolean {
    return this.acknowledged === this.#events.length;
  }

  /** Submits on until everything is acknowledged or a call fails; returns whether it is done. */
  async run(client: RouterClient, eventsPerCall: number): Promise<boolean> {
    const { method } = AppserviceRouter;
    try {
      const { streamPosition } = await client.call(method.getStreamPosition, { stream: this.#stream });
      let next = Number(streamPosition);
      if (next < this.acknowledged) throw new Error(`the router forgot: it answered ${this.acknowledged} and now says ${next}`);
      while (next < this.#events.length) {
        const events = this.#events.slice(next, next + eventsPerCall).map((json, at) => ({ json, streamPosition: BigInt(next + at + 1) }));
        const answer = await client.call(method.submitEvents, { stream: this.#stream, events });
        next = Number(answer.streamPosition);
        this.acknowledged = next;
      }
      return true;
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('the router forgot')) throw error;
      return false;
    }
  }
}
