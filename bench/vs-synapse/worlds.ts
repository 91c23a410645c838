/** The two ways that are compared: the same Synapse, room, people and appservice, once without and once with the router. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { MatrixClient } from '../../test-e2e/support/matrix-client.ts';
import { routedSynapse } from '../../test-e2e/support/routed-synapse.ts';
import type { RoutedSynapse } from '../../test-e2e/support/routed-synapse.ts';
import { Synapse } from '../../test-e2e/support/synapse.ts';
import type { World } from '../../test-e2e/support/world.ts';
import { CountingAppservice } from './counting-appservice.ts';
import type { OutageWorld } from './outage.ts';

const ID = 'counting';
const AS_TOKEN = 'as-counting-long-enough';
const PEOPLE = 4;
const PING_ATTEMPTS_MAX = 5;

export async function openDirect(world: World): Promise<OutageWorld> {
  const { appservice, registration } = await openAppservice(world);
  const synapse = world.use(await Synapse.configure(world.python, join(world.folder, 'synapse'), { registrations: [registration] }));
  await synapse.start();
  return { appservice, ...(await openRoom(synapse)), ping: () => ping(synapse.url) };
}

export interface RoutedWorld extends OutageWorld, RoutedSynapse {}

export async function openRouted(world: World, transactionEventsMax: number | null): Promise<RoutedWorld> {
  const { appservice, registration } = await openAppservice(world);
  const settings: Readonly<Record<string, string>> = transactionEventsMax === null ? {} : { ROUTER_TRANSACTION_EVENTS_MAX: String(transactionEventsMax) };
  const routed = await routedSynapse(world, [registration], settings);
  return { ...routed, appservice, ...(await openRoom(routed.synapse)), ping: () => ping(routed.router.url) };
}

async function openAppservice(world: World): Promise<{ appservice: CountingAppservice; registration: string }> {
  const appservice = world.use(await CountingAppservice.make());
  await appservice.up();
  const registration = join(world.folder, `${ID}.yaml`);
  const namespaces = { users: [{ regex: '@counted_.*', exclusive: true }], aliases: [{ regex: '#counted_.*', exclusive: true }] };
  writeFileSync(registration, stringify({ id: ID, url: `http://127.0.0.1:${appservice.port}`, as_token: AS_TOKEN, hs_token: 'hs-counting-long-enough', sender_localpart: ID, rate_limited: false, namespaces }));
  return { appservice, registration };
}

/** A room with one of the appservice's users in it. */
async function openRoom(synapse: Synapse): Promise<{ people: readonly MatrixClient[]; roomId: string }> {
  const people = await Promise.all(Array.from({ length: PEOPLE }, (_, at) => synapse.register(`person${at}`)));
  const ghost = synapse.as(AS_TOKEN, '@counted_one:hs.test');
  await ghost.request('POST', '/_matrix/client/v3/register', { type: 'm.login.application_service', username: 'counted_one', inhibit_login: true });
  const roomId = await synapse.as(AS_TOKEN, `@${ID}:hs.test`).createRoom();
  for (const person of people) await person.join(roomId);
  return { people, roomId };
}

/** As bridges do when they have started. It is given to whom a reverse proxy would give it. */
async function ping(baseUrl: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(`${baseUrl}/_matrix/client/v1/appservice/${ID}/ping`, { method: 'POST', headers: { authorization: `Bearer ${AS_TOKEN}`, 'content-type': 'application/json' }, body: '{}' });
    const text = await response.text();
    if (response.ok) return;
    // Synapse fails now and then if it tries its transaction at the same moment.
    if (attempt === PING_ATTEMPTS_MAX) throw new Error(`the ping was answered with ${response.status}: ${text}`);
  }
}
