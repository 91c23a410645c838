/** Files, registrar, vault and ledger together, on the reference log. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Registrar } from '../../src/admin/registrar.ts';
import { systemClock, systemRandom } from '../../src/clock.ts';
import { Fold } from '../../src/ingest/fold.ts';
import { Ledger } from '../../src/ingest/ledger.ts';
import type { Logger } from '../../src/logger.ts';
import { encryptionKeysFrom } from '../../src/registration/encryption-key.ts';
import { registrationDisk } from '../../src/registration/registration-disk.ts';
import { RegistrationFiles } from '../../src/registration/registration-files.ts';
import { registrationFromYaml } from '../../src/registration/registration-yaml.ts';
import { Vault } from '../../src/registration/vault.ts';
import { LIMITS } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { REGISTRATION, RULES, YAML } from './rules.ts';

const root = await mkdtemp(join(tmpdir(), 'router-target-'));
after(() => rm(root, { recursive: true }));
const silent: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const SERVER = 'example.org';

function vault(): Vault {
  const keys = encryptionKeysFrom(Buffer.alloc(32, 3).toString('base64'));
  return new Vault(typeof keys === 'string' ? assert.fail(keys) : keys, systemRandom);
}

async function open(log: MemoryLog): Promise<{ registrar: Registrar; files(): Promise<RegistrationFiles> } & AsyncDisposable> {
  const sealer = vault();
  const fold = await Fold.load({ serverName: SERVER, store: log, open: (...stored) => sealer.open(...stored), pause: () => systemClock.pause(), roomsMax: 100 });
  const meter = { group: () => undefined, submitted: () => undefined, unasked: () => undefined };
  const ledger = new Ledger({ fold, log, answers: { isAnswered: () => false }, listener: { segmentFolded: () => undefined }, meter, clock: systemClock, random: systemRandom, logger: silent, limits: LIMITS });
  await ledger.start();
  const registrar = new Registrar({ serverName: SERVER, registrations: () => fold.registrations, ledger, vault: sealer, registrationsMax: 100 });
  return {
    registrar,
    files: () =>
      RegistrationFiles.start({
        disk: { ...registrationDisk([root]), watch: () => ({ [Symbol.dispose]: () => undefined }) },
        target: {
          list: () => registrar.origins(),
          put: (registration, { origin, resumeParked }) => registrar.put(registration, origin, resumeParked),
          remove: (appserviceId, backlog) => registrar.remove(appserviceId, backlog),
        },
        read: (text) => registrationFromYaml(text, RULES),
        clock: systemClock, logger: silent, settleMs: 1, pollMs: 3_600_000,
      }),
    [Symbol.asyncDispose]: () => ledger[Symbol.asyncDispose](),
  };
}

test('R20 R76 I12 files reach the log sealed, survive a restart, park and resume', async () => {
  const log = new MemoryLog();
  const other = YAML.replace('id: irc', 'id: xmpp').replace('as-secret-0', 'as-secret-1');
  await writeFile(join(root, 'a.yaml'), YAML);
  await writeFile(join(root, 'b.yaml'), other);
  {
    await using house = await open(log);
    await using files = await house.files();
    assert.deepEqual(files.problems(), []);
    assert.deepEqual(house.registrar.get('irc'), REGISTRATION);
    assert.equal(log.segments.length, 2);
    assert.ok(!/secret-/.test(JSON.stringify(log.segments)));
    await unlink(join(root, 'a.yaml'));
    await files.settled();
    assert.throws(() => house.registrar.get('irc'), /There is no appservice/);
    await writeFile(join(root, 'a.yaml'), YAML);
    await files.settled();
    assert.deepEqual([files.problems(), house.registrar.get('irc')], [[], REGISTRATION]);
    const change = log.segments.at(-1)?.registrationChanges[0];
    assert.ok(change?.kind === 'put' && change.resumeParked);
  }
  const written = log.segments.length;
  await using house = await open(log);
  await using files = await house.files();
  assert.deepEqual([files.problems(), log.segments.length], [[], written]);
  assert.deepEqual(house.registrar.list().map(({ appserviceId }) => appserviceId), ['irc', 'xmpp']);
  await house.registrar.put({ ...REGISTRATION, id: 'api', as_token: 'as-secret-of-the-api' }, 'api', false);
  await writeFile(join(root, 'c.yaml'), YAML.replace('id: irc', 'id: third').replace(/as_token: .*/, 'as_token: as-secret-of-the-api'));
  await files.settled();
  assert.deepEqual(files.problems().map(({ file, message }) => [file, /"third" is that of "api" already/.test(message)]), [[join(root, 'c.yaml'), true]]);
});
