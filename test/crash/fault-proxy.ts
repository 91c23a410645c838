/**
 * A way between two processes that can be broken: connections are reset, answers are lost on the way back, bytes stand
 * still, or nobody is let through. Faults meet all connections, or only those that show a mark in their first bytes.
 */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';

interface Way {
  readonly near: Socket;
  readonly far: Socket;
  isMarked: boolean;
}

/** Which way bytes stand still, or are thrown away. */
type Passage = 'open' | 'stalled' | 'answers_lost';

const MARK_BYTES_MAX = 4_096;

export class FaultProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #ways = new Set<Way>();
  readonly #mark: string | null;
  readonly #targetPort: number;
  #passage: Passage = 'open';
  #isShut = false;

  private constructor(targetPort: number, mark: string | null) {
    this.#targetPort = targetPort;
    this.#mark = mark;
    this.#server = createServer((near) => this.#open(near));
  }

  /** `mark`: faults meet only connections whose first bytes contain it. */
  static async start(targetPort: number, mark: string | null = null): Promise<FaultProxy> {
    const proxy = new FaultProxy(targetPort, mark);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Breaks off marked connections, each with this probability. */
  reset(share = 1, chance: () => number = () => 0): void {
    for (const way of [...this.#ways]) if (way.isMarked && chance() < share) way.near.resetAndDestroy();
  }

  /** Marked connections, new ones too, stand still until {@link heal}. */
  stall(): void {
    this.#passage = 'stalled';
    for (const way of this.#ways) this.#set(way);
  }

  /** What the far side says on marked connections is thrown away; {@link heal} resets these. */
  loseAnswers(): void {
    this.#passage = 'answers_lost';
  }

  /** Nobody gets through, marked or not. */
  shut(): void {
    this.#isShut = true;
    for (const { near } of [...this.#ways]) near.resetAndDestroy();
  }

  heal(): void {
    if (this.#passage === 'answers_lost') this.reset();
    this.#isShut = false;
    this.#passage = 'open';
    for (const way of this.#ways) this.#set(way);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isShut = true;
    for (const { near } of [...this.#ways]) near.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #open(near: Socket): void {
    if (this.#isShut) return void near.resetAndDestroy();
    near.setNoDelay(true);
    const far = connect(this.#targetPort, '127.0.0.1');
    far.setNoDelay(true);
    const way: Way = { near, far, isMarked: this.#mark === null };
    this.#ways.add(way);
    let seen = '';
    near.on('data', (bytes: Buffer) => {
      if (!way.isMarked && this.#mark !== null && seen.length < MARK_BYTES_MAX) {
        seen += bytes.toString('latin1');
        way.isMarked = seen.includes(this.#mark);
      }
      pass(bytes, near, far);
      if (this.#passage === 'stalled') this.#set(way);
    });
    far.on('data', (bytes: Buffer) => {
      if (!(way.isMarked && this.#passage === 'answers_lost')) pass(bytes, far, near);
    });
    for (const [one, other] of [[near, far], [far, near]] as const) {
      one.on('error', () => undefined);
      one.on('end', () => other.end());
      one.on('close', () => {
        if (one === near && near.errored !== null) far.resetAndDestroy();
        else other.destroy();
        this.#ways.delete(way);
      });
    }
    this.#set(way);
  }

  #set(way: Way): void {
    const isStill = way.isMarked && this.#passage === 'stalled';
    for (const socket of [way.near, way.far]) {
      if (isStill) socket.pause();
      else socket.resume();
    }
  }
}

function pass(bytes: Buffer, from: Socket, to: Socket): void {
  if (to.destroyed || to.write(bytes)) return;
  from.pause();
  to.once('drain', () => from.resume());
}
