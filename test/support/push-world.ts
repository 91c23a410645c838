/**
 * A Push over a real HTTP client and a clock that the test owns, and registrations to push with.
 */
import type { Registration } from '../../src/appservice/registration.ts';
import type { PushOutcome } from '../../src/delivery/ports.ts';
import { HttpPush } from '../../src/delivery/push.ts';
import { createAddressPolicy } from '../../src/query/address-policy.ts';
import type { AddressPolicyOptions } from '../../src/query/address-policy.ts';
import { systemNetwork } from '../../src/query/connect.ts';
import type { Network } from '../../src/query/connect.ts';
import { HTTP_CLIENT_LIMITS, HttpClient } from '../../src/query/http-client.ts';
import type { HttpClientOptions } from '../../src/query/http-client.ts';
import { VirtualClock } from './clock.ts';

export const HS_TOKEN = 'hs-secret-9f2c';
export const AS_TOKEN = 'as-secret-77d1';

export function registrationFor(url: string, rest: Partial<Registration> = {}): Registration {
  return {
    id: 'logger',
    url,
    as_token: AS_TOKEN,
    hs_token: HS_TOKEN,
    sender_localpart: 'logger',
    namespaces: { users: [], aliases: [], rooms: [] },
    protocols: [],
    rate_limited: true,
    receive_ephemeral: false,
    push_ephemeral_unstable: false,
    device_extensions: false,
    delivery_options: {},
    ...rest,
  };
}

export function policyOptions(rest: Partial<AddressPolicyOptions> = {}): AddressPolicyOptions {
  return { mode: 'default', allow: [], ownListeners: () => [], localAddresses: () => [], ...rest };
}

export interface PushWorldOptions {
  readonly policy?: Partial<AddressPolicyOptions>;
  readonly network?: Partial<Network>;
  readonly limits?: Partial<HttpClientOptions>;
  readonly pushTimeoutMs?: number;
}

export class PushWorld implements AsyncDisposable {
  readonly clock = new VirtualClock(Date.UTC(2026, 0, 1));
  readonly client: HttpClient;
  readonly push: HttpPush;

  constructor({ policy, network, limits, pushTimeoutMs = 60_000 }: PushWorldOptions = {}) {
    this.client = new HttpClient({
      ...HTTP_CLIENT_LIMITS,
      clock: this.clock,
      policy: createAddressPolicy(policyOptions(policy)),
      network: { ...systemNetwork(), ...network },
      ...limits,
    });
    this.push = new HttpPush({ client: this.client, clock: this.clock, pushTimeoutMs, retryAfterMsMax: 600_000 });
  }

  send(registration: Registration, txnId = '1', body = '{"events":[]}', signal = new AbortController().signal): Promise<PushOutcome> {
    return this.push.push({ serverName: 'example.org', appserviceId: registration.id, registration, txnId, body: Buffer.from(body) }, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client[Symbol.asyncDispose]();
  }
}
