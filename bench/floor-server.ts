/**
 * What no router can leave out: echo, and besides each event is parsed by JSON.parse and its bytes are durable, by the
 * router's own store in groups as large as come, before the answer. Nothing is routed and nobody receives anything. What
 * this reaches of echo is the most that any design with these parts can reach. Argument: the file of the store, or a MongoDB URI.
 */
import { create } from '@bufbuild/protobuf';
import { SubmitEventsResponseSchema } from '../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { systemClock, systemRandom } from '../src/clock.ts';
import { openMongoStore } from '../src/store/mongo/open.ts';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import { serveBare } from './bare-server.ts';
import type { BareAnswer, BareRequest } from './bare-server.ts';

const GROUP_EVENTS_MAX = 4_000;
const place = process.argv[2] ?? ':memory:';
const mute = (): void => undefined;
const logger = { debug: mute, info: mute, warn: mute, error: mute };
const store = place.startsWith('mongodb') ? await openMongoStore(place, { clock: systemClock, random: systemRandom, logger }) : await openSqliteStore({ path: place, clock: systemClock });
const utf8 = new TextDecoder('utf-8', { fatal: true });
const waiting: { readonly request: BareRequest; readonly callback: (answer: BareAnswer) => void }[] = [];
let tail = 0;
let isAppending = false;

async function append(): Promise<void> {
  isAppending = true;
  while (waiting.length > 0) {
    let count = 0;
    const end = waiting.findIndex(({ request }) => (count += request.events.length) > GROUP_EVENTS_MAX);
    const group = waiting.splice(0, end <= 0 ? waiting.length : end);
    const jsons = group.flatMap(({ request }) => request.events.map(({ json }) => json));
    const bytes = new Uint8Array(jsons.reduce((sum, json) => sum + json.byteLength, 0));
    let offset = 0;
    const entries = jsons.map((json) => {
      bytes.set(json, offset);
      offset += json.byteLength;
      return { kind: 'event' as const, json: bytes.subarray(offset - json.byteLength, offset) };
    });
    const outcome = await store.append({
      serverName: 'floor', firstPosition: tail + 1, entries, routes: [], roomDeltas: [], streamPositions: {}, registrationChanges: [], registrationsVersion: 0, nonce: String(tail), timeMs: systemClock.nowMs(),
    });
    if (outcome.kind !== 'appended') throw new Error('the floor has a rival');
    tail += entries.length;
    for (const { request, callback } of group) callback(create(SubmitEventsResponseSchema, { accepted: request.events.length, routed: request.events.length }));
  }
  isAppending = false;
}

serveBare((request, callback) => {
  for (const { json } of request.events) JSON.parse(utf8.decode(json));
  waiting.push({ request, callback });
  if (!isAppending) void append();
});
