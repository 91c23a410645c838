/** Third-party look-ups and key requests over the client and the clock of a PushWorld, with what was logged. */
import assert from 'node:assert/strict';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import type { LogFields, Logger } from '../../src/logger.ts';
import type { HttpClientOptions } from '../../src/query/http-client.ts';
import { Keys, KEY_LIMITS } from '../../src/query/keys.ts';
import type { QuestionLimits } from '../../src/query/question.ts';
import { ThirdParty, THIRD_PARTY_LIMITS } from '../../src/query/third-party.ts';
import type { ThirdPartyLimits } from '../../src/query/third-party.ts';
import { seededRandom, settle } from './clock.ts';
import { PushWorld, registrationFor } from './push-world.ts';
import type { Receiver } from './receiver.ts';

export const LOOKUP_SERVER = 'example.org';

export interface LookupWorldOptions {
  readonly thirdParty?: Partial<ThirdPartyLimits>;
  readonly keys?: Partial<QuestionLimits>;
  readonly client?: Partial<HttpClientOptions>;
}

export class LookupWorld implements AsyncDisposable {
  readonly push: PushWorld;
  readonly logged: { readonly level: string; readonly fields: LogFields; readonly message: string }[] = [];
  readonly thirdParty: ThirdParty;
  readonly keys: Keys;

  constructor({ thirdParty, keys, client }: LookupWorldOptions = {}) {
    this.push = new PushWorld(client === undefined ? {} : { limits: client });
    const log = (level: string) => (fields: LogFields, message: string) => void this.logged.push({ level, fields, message });
    const logger: Logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
    const options = { client: this.push.client, clock: this.push.clock, logger, random: seededRandom(1), queryTimeoutMs: 5_000 };
    this.thirdParty = new ThirdParty(options, { ...THIRD_PARTY_LIMITS, ...thirdParty });
    this.keys = new Keys(options, { ...KEY_LIMITS, ...keys });
  }

  get warnings(): readonly { readonly fields: LogFields; readonly message: string }[] {
    return this.logged.filter(({ level }) => level === 'warn');
  }

  /** Lets time pass until it has ended; gives back how long that took. Fails beyond `limitMs`. */
  async ended<Value>(pending: Promise<Value>, limitMs = 60_000): Promise<number> {
    const { clock } = this.push;
    const beganMs = clock.nowMs();
    let isOver = false;
    const over = (): void => void (isOver = true);
    pending.then(over, over);
    await settle();
    while (!isOver) {
      assert.ok(clock.nowMs() - beganMs < limitMs, 'the look-up goes on');
      await clock.advance(clock.sleeperCount === 0 ? 0 : 50);
    }
    return clock.nowMs() - beganMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.thirdParty[Symbol.asyncDispose]();
    await this.keys[Symbol.asyncDispose]();
    await this.push[Symbol.asyncDispose]();
  }
}

export function refusedWith(reason: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof RefusalError, String(error));
    assert.equal(error.reason, reason);
    return true;
  };
}

export const appserviceAt = (id: string, receiver: Pick<Receiver, 'url'>, rest: Partial<Registration> = {}): Registration => registrationFor(receiver.url, { id, ...rest });
