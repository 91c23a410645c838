/** Typing, receipts and presence through the whole router, judged by what published libraries emit to their programs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { startBotSdk } from '../support/receiver-bot-sdk.ts';
import { startBotSdkLegacy } from '../support/receiver-bot-sdk-legacy.ts';
import { startBridge } from '../support/receiver-bridge.ts';
import { startElementBotSdk } from '../support/receiver-bot-sdk-element.ts';
import type { LibraryReceiver } from '../support/receiver-library.ts';
import { startMatrixAppservice } from '../support/receiver-matrix-appservice.ts';
import { put } from '../support/router-home.ts';
import { eventJson, member, SERVER } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';
import { StubHomeserver } from '../support/stub-homeserver.ts';

const LIMIT = { timeout: 30_000 };
const { submitEvents } = AppserviceRouter.method;
const ROOM = '!r:hs.test';

type Start = (options: { readonly hsToken: string; readonly asToken: string; readonly homeserverUrl: string; readonly serverName: string; readonly senderLocalpart: string }) => Promise<LibraryReceiver>;

const LIBRARIES: Readonly<Record<string, Start>> = {
  'matrix-appservice 2': startMatrixAppservice,
  'matrix-appservice-bridge 10': startBridge,
  'matrix-bot-sdk 0.8': startBotSdk,
  'matrix-bot-sdk of Element': startElementBotSdk,
};

function yaml(id: string, url: string, flags: readonly string[]): string {
  return `id: ${id}
url: ${url}
as_token: as-${id}-long-enough
hs_token: hs-${id}-long-enough
sender_localpart: _${id}_bot
namespaces:
  users:
    - regex: "@_${id}_.*:hs\\\\.test"
      exclusive: true
${flags.map((flag) => `${flag}: true\n`).join('')}`;
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
const bot = (id: string): string => `@_${id}_bot:hs.test`;

const typing = { type: 'm.typing', room_id: ROOM, content: { user_ids: ['@alice:hs.test', '@bob:far.test'] } };
const presence = (id: string) => ({ type: 'm.presence', sender: bot(id), content: { presence: 'unavailable', last_active_ago: 5, status_msg: 'Nº 🦊 \u2028' } });
const receipt = (hidden: object) => ({ type: 'm.receipt', room_id: ROOM, content: { $1: { 'm.read': { '@alice:hs.test': { ts: 1_767_225_600_000, thread_id: 'main' }, '@bob:far.test': { ts: 2 } }, ...hidden } } });
const hidden = (...users: readonly string[]) => ({ 'm.read.private': Object.fromEntries(users.map((user) => [user, { ts: 3 }])) });

for (const [name, start] of Object.entries(LIBRARIES)) {
  for (const flags of [['de.sorunome.msc2409.push_ephemeral'], ['receive_ephemeral', 'de.sorunome.msc2409.push_ephemeral']]) {
    test(`R78 R80 R81 R82 R83 R84 ${name} emits what was sent, once, with ${flags.join(' and ')}`, LIMIT, async () => {
      await using stub = await StubHomeserver.start();
      await using receiver = await start({ hsToken: 'hs-lib-long-enough', asToken: 'as-lib-long-enough', homeserverUrl: stub.url, serverName: SERVER, senderLocalpart: '_lib_bot' });
      await using world = await startService();
      await put(world.admin, yaml('lib', receiver.url, flags));
      const join = member('$join', bot('lib'), 'join', ROOM);
      const { routed } = await world.homeserver.call(submitEvents, {
        events: [{ json: eventJson(join), streamPosition: 1n }],
        ephemeral: [typing, receipt(hidden(bot('lib'), '@alice:hs.test')), presence('lib'), { ...typing, room_id: '!other:hs.test' }, { ...presence('other') }].map((value) => ({ json: json(value) })),
      });
      assert.equal(routed, 4);
      const isEphemeral = (event: unknown): boolean => typeof event === 'object' && event !== null && 'type' in event && !String(event.type).startsWith('m.room.');
      await receiver.until(() => receiver.events.filter(isEphemeral).length >= 3);
      // Whatever would have been emitted twice is there before this.
      const last = { ...typing, content: { user_ids: [] } };
      await world.homeserver.call(submitEvents, { ephemeral: [{ json: json(last) }] });
      await receiver.until(() => receiver.events.filter(isEphemeral).length >= 4);
      // The generations of matrix-bot-sdk note in `unsigned` what kind it is.
      const shown = receiver.events.filter(isEphemeral).map((event) => JSON.stringify(event, (key, value: unknown) => (key === 'unsigned' ? undefined : value)));
      assert.deepEqual(shown, [typing, presence('lib'), receipt(hidden(bot('lib'))), last].map((event) => JSON.stringify(event)));
    });
  }
}

test('R80 with the stable key alone these libraries see nothing of it, and one that knows neither takes no harm', LIMIT, async () => {
  await using stub = await StubHomeserver.start();
  await using newer = await startMatrixAppservice({ hsToken: 'hs-newer-long-enough' });
  await using legacy = await startBotSdkLegacy({ hsToken: 'hs-legacy-long-enough', asToken: 'as-legacy-long-enough', homeserverUrl: stub.url, serverName: SERVER, senderLocalpart: '_legacy_bot' });
  await using world = await startService();
  await put(world.admin, yaml('newer', newer.url, ['receive_ephemeral']));
  await put(world.admin, `${yaml('legacy', legacy.url, ['receive_ephemeral', 'de.sorunome.msc2409.push_ephemeral'])}appservice_router:\n  legacy_auth: both\n`);
  const joins = ['newer', 'legacy'].map((id) => ({ json: eventJson(member(`$${id}`, bot(id), 'join', ROOM)) }));
  const { routed } = await world.homeserver.call(submitEvents, { events: joins, ephemeral: [{ json: json(typing) }] });
  assert.equal(routed, 5);
  await Promise.all([newer.received(2), legacy.received(1)]);
  await world.homeserver.call(submitEvents, { events: [{ json: eventJson({ id: '$last', room: ROOM }) }] });
  await Promise.all([newer.received(3), legacy.received(2)]);
  const types = (receiver: LibraryReceiver): unknown[] => receiver.events.map((event) => (typeof event === 'object' && event !== null && 'type' in event ? event.type : event));
  assert.deepEqual([types(newer), types(legacy)], [['m.room.member', 'm.room.member', 'm.room.message'], ['m.room.member', 'm.room.message']]);
});
