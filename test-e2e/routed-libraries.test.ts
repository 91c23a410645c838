// Synapse, the router and appservices on the published npm libraries, all at once in one room.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { stringify } from 'yaml';
import { unusedPort } from '../test/support/receiver.ts';
import { startBotSdk } from '../test/support/receiver-bot-sdk.ts';
import { startElementBotSdk } from '../test/support/receiver-bot-sdk-element.ts';
import { startBotSdkLegacy } from '../test/support/receiver-bot-sdk-legacy.ts';
import type { BotSdkOptions, LibraryReceiver } from '../test/support/receiver-library.ts';
import { startMatrixAppservice } from '../test/support/receiver-matrix-appservice.ts';
import { until } from './support/program.ts';
import { routedSynapse } from './support/routed-synapse.ts';
import { SERVER_NAME } from './support/synapse.ts';
import { inWorld } from './support/world.ts';

const MESSAGES = 40;

interface Library {
  readonly name: string;
  readonly start: (options: Required<Pick<BotSdkOptions, 'hsToken' | 'asToken' | 'homeserverUrl' | 'serverName' | 'senderLocalpart' | 'port'>>) => Promise<LibraryReceiver>;
  readonly deliveryOptions?: Readonly<Record<string, string>>;
}

const LIBRARIES: readonly Library[] = [
  { name: 'appservice', start: startMatrixAppservice },
  { name: 'botsdk', start: startBotSdk },
  { name: 'element', start: startElementBotSdk },
  // It knows the token in the query and the paths from before version 1 only.
  { name: 'legacy', start: startBotSdkLegacy, deliveryOptions: { legacy_paths: 'unrecognized', legacy_auth: 'query_only' } },
];

test('R49 R62 each npm library tells its program every message of a room on Synapse, once and in order', { timeout: 180_000 }, () =>
  inWorld(async (world) => {
    const plans = await Promise.all(LIBRARIES.map(async (library) => ({ ...library, port: await unusedPort(), file: join(world.folder, `${library.name}.yaml`) })));
    for (const { name, port, file, deliveryOptions } of plans) {
      writeFileSync(
        file,
        stringify({
          id: name,
          url: `http://127.0.0.1:${port}`,
          as_token: `as-${name}-long-enough`,
          hs_token: `hs-${name}-long-enough`,
          sender_localpart: `_${name}_bot`,
          namespaces: { rooms: [{ regex: '!.*', exclusive: false }] },
          ...(deliveryOptions === undefined ? {} : { appservice_router: deliveryOptions }),
        }),
      );
    }
    const { synapse } = await routedSynapse(world, plans.map(({ file }) => file));
    const receivers = await Promise.all(
      plans.map(async ({ name, port, start }) => {
        const receiver = await start({ hsToken: `hs-${name}-long-enough`, asToken: `as-${name}-long-enough`, homeserverUrl: synapse.url, serverName: SERVER_NAME, senderLocalpart: `_${name}_bot`, port });
        return { name, receiver: world.use(receiver) };
      }),
    );
    const alice = await synapse.register('alice');
    const room = await alice.createRoom();
    const said: string[] = [];
    for (let number = 1; number <= MESSAGES; number++) said.push(await alice.say(room, `message ${number}`));
    for (const { name, receiver } of receivers) {
      const messages = (): string[] => (receiver.events as { type: string; event_id: string }[]).filter(({ type }) => type === 'm.room.message').map(({ event_id }) => event_id);
      await until(`${name} has had all`, 60_000, () => (messages().includes(said.at(-1) ?? '') ? true : null));
      assert.deepEqual(messages(), said, name);
    }
  }),
);
