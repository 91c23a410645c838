// The lines of homeserver.yaml that synapse-setup writes for an appservice with devices, in a real Synapse; and what the
// copies with `url: null` keep reserved there.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { stringify } from 'yaml';
import { RecordingReceiver } from '../test/support/recording-receiver.ts';
import { until } from './support/program.ts';
import { routedSynapse } from './support/routed-synapse.ts';
import { SERVER_NAME } from './support/synapse.ts';
import { inWorld } from './support/world.ts';

const WAIT_MS = 60_000;
const TO_DEVICE = 'de.sorunome.msc2409.to_device';
const KEY_COUNTS = 'org.matrix.msc3202.device_one_time_keys_count';

test('R89 R90 R97 an appservice with devices gets to-device messages and the numbers of its keys from Synapse through the router, and its names stay its own', { timeout: 180_000 }, () =>
  inWorld(async (world) => {
    const receiver = world.use(await RecordingReceiver.start());
    const registration = join(world.folder, 'devices.yaml');
    writeFileSync(
      registration,
      stringify({
        id: 'devices',
        url: `${receiver.url}/devices`,
        as_token: 'as-devices-long-enough',
        hs_token: 'hs-devices-long-enough',
        sender_localpart: 'devicesbot',
        rate_limited: false,
        receive_ephemeral: true,
        'de.sorunome.msc2409.push_ephemeral': true,
        'org.matrix.msc3202': true,
        namespaces: { users: [{ regex: `@dev_.*:${SERVER_NAME}`, exclusive: true }], aliases: [{ regex: `#dev_.*:${SERVER_NAME}`, exclusive: true }] },
      }),
    );
    const { synapse } = await routedSynapse(world, [registration]);
    assert.match(readFileSync(join(world.folder, 'setup', 'homeserver-lines.yaml'), 'utf8'), /^experimental_features:$/m);
    const alice = await synapse.register('alice');
    const ghost = synapse.as('as-devices-long-enough', '@dev_one:hs.test');
    await ghost.request('POST', '/_matrix/client/v3/register', { type: 'm.login.application_service', username: 'dev_one', device_id: 'DEVICE' });
    await alice.request('PUT', '/_matrix/client/v3/sendToDevice/m.test/1', { messages: { '@dev_one:hs.test': { '*': { n: 1 } } } });
    const bodies = (): Record<string, unknown>[] => receiver.received.map(({ body }) => body);
    const sent = { type: 'm.test', sender: '@alice:hs.test', content: { n: 1 }, to_user_id: '@dev_one:hs.test', to_device_id: 'DEVICE' };
    const messages = await until('the to-device message arrives', WAIT_MS, () => {
      const found = bodies().flatMap((body) => (body[TO_DEVICE] as Record<string, unknown>[] | undefined) ?? []);
      return found.length > 0 ? found : null;
    });
    assert.deepEqual(messages.map(({ message_id: _, ...message }) => message), [sent]);
    await until('the numbers of its keys arrive', WAIT_MS, () => bodies().some((body) => JSON.stringify(body[KEY_COUNTS] ?? {}).includes('"DEVICE":{')) || null);

    // Synapse keeps the names by itself, so a module that asked the router would say nothing new.
    const room = await alice.createRoom();
    const exclusive = { status: 400, errcode: 'M_EXCLUSIVE' };
    await assert.rejects(alice.request('PUT', `/_matrix/client/v3/directory/room/${encodeURIComponent('#dev_mine:hs.test')}`, { room_id: room }), exclusive);
    await assert.rejects(synapse.register('dev_two'), /M_EXCLUSIVE/);
  }),
);
