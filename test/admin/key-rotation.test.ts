/** A rotation of the encryption key that ends at any step, on the real ledger, vault and key file. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { KeyRotation } from '../../src/admin/key-rotation.ts';
import { Registrar } from '../../src/admin/registrar.ts';
import { systemClock, systemRandom } from '../../src/clock.ts';
import { Fold } from '../../src/ingest/fold.ts';
import { Ledger } from '../../src/ingest/ledger.ts';
import { Upkeep } from '../../src/ingest/upkeep.ts';
import { encryptionKeysFrom } from '../../src/registration/encryption-key.ts';
import { KeyFile } from '../../src/registration/key-file.ts';
import { Vault } from '../../src/registration/vault.ts';
import { StoreError } from '../../src/store/errors.ts';
import { LIMITS, silent } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import type { AppendFault } from '../support/memory-store.ts';
import { registration, SERVER } from '../support/routing.ts';

const ORDER = { replacedKeyId: undefined, sharedKeyFile: true };
/** More than one segment has sealed anew. */
const COUNT = 230;

interface Router extends AsyncDisposable {
  readonly registrar: Registrar;
  readonly rotation: KeyRotation;
  readonly vault: Vault;
}

/** A router that starts on what is in the file and in the log. */
async function start(path: string, log: MemoryLog): Promise<Router> {
  const keys = encryptionKeysFrom(await readFile(path, 'utf8'));
  if (typeof keys === 'string') assert.fail(keys);
  const keyFile = new KeyFile({ path, random: systemRandom, keys });
  const vault = new Vault(keys, systemRandom, () => keyFile.reread());
  const fold = await Fold.load({ serverName: SERVER, store: log, open: (...stored) => vault.open(...stored), pause: () => systemClock.pause(), roomsMax: 10 });
  const meter = { group: () => undefined, submitted: () => undefined, unasked: () => undefined };
  const ledger = new Ledger({ fold, log, answers: { isAnswered: () => false }, listener: { segmentFolded: () => undefined }, meter, clock: systemClock, random: systemRandom, logger: silent, limits: { ...LIMITS, readSegmentsMax: 1_000 } });
  await ledger.start();
  const registrar = new Registrar({ serverName: SERVER, registrations: () => fold.registrations, ledger, vault, registrationsMax: 1_000 });
  const upkeep = new Upkeep(
    {
      fold, ledger, store: log, clock: systemClock, logger: silent,
      deliveredPositions: () => new Map(), cutPositions: () => ({ asOfMs: 0, positions: new Map() }), expired: () => undefined,
      ephemeralAgeMaxMs: 1, intervalMs: 1, checkpointIntervalMs: 1, dirtyRoomsMax: 1, trimIntervalMs: 1, retentionMs: 0, trimSegmentsMax: 1, trimCallsMax: 1,
    },
    fold.tail,
  );
  const rotation = new KeyRotation({ vault, keyFile, registrars: () => [registrar], saveFolds: () => upkeep.checkpoint(), isStoreExclusive: false, logger: silent });
  return { registrar, rotation, vault, [Symbol.asyncDispose]: () => ledger[Symbol.asyncDispose]() };
}

for (const fault of ['not_done', 'answer_lost'] satisfies AppendFault[]) {
  test(`M10 I12 a rotation that ends at any of its appends (${fault}) is finished by the next call, with the key that it made`, { timeout: 60_000 }, async () => {
    for (let at = 1; ; at++) {
      const folder = await mkdtemp(join(tmpdir(), 'rotation-'));
      try {
        const path = join(folder, 'key');
        await writeFile(path, `${Buffer.alloc(32, 1).toString('base64')}\n`, { mode: 0o600 });
        const log = new MemoryLog();
        {
          await using first = await start(path, log);
          for (let number = 0; number < COUNT; number++) await first.registrar.put(registration(`as${number}`, { as_token: `as-token-${number}` }), 'api', false);
          let appends = 0;
          log.beforeAppend = () => (++appends === at ? fault : 'none');
          const outcome = await first.rotation.rotate(ORDER).catch((error: unknown) => error);
          log.beforeAppend = () => 'none';
          if (appends < at) {
            assert.ok(at > 2, `${at} appends`);
            return;
          }
          assert.ok(outcome instanceof StoreError && outcome.kind === 'unavailable', String(outcome));
        }
        await using second = await start(path, log);
        const { keyCreated, resealedCount, keys } = await second.rotation.rotate(ORDER);
        // All may have been sealed anew by then, if the last append took effect: then a further key is what was asked for.
        assert.deepEqual(keys.map(({ registrationCount }) => registrationCount), keyCreated ? [COUNT, 0, 0] : [COUNT, 0]);
        assert.equal(keyCreated, resealedCount === COUNT && keys.length === 3);
        for (const { appserviceId, stored } of second.registrar.list()) assert.equal(stored !== null && second.vault.isSealedAnew(stored), true, appserviceId);
        // Only the newest key opens, and the oldest finds.
        const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '');
        await writeFile(path, `${lines[0]}\nlookup ${lines.at(-1)}\n`);
        await using third = await start(path, log);
        assert.deepEqual(third.registrar.list().map(({ registration: opened }) => opened?.as_token).sort(), Array.from({ length: COUNT }, (_, number) => `as-token-${number}`).sort());
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    }
  });
}
