import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceKeys } from '../../src/appservice/device-extensions.ts';
import { DeviceKeysFold } from '../../src/ingest/device-keys.ts';

const keysOf = (user: number, device = 'D', types: readonly string[] = []): DeviceKeys => ({ userId: `@u${user}:hs.test`, deviceId: device, oneTimeKeyCounts: { k: user }, unusedFallbackKeyTypes: types });
const usersOf = (fold: DeviceKeysFold): string[] => [...fold.userIds()];

test('R98 the latest of each device is kept, of 5,000 devices; the user told of longest ago goes first', () => {
  const fold = new DeviceKeysFold();
  fold.apply(Array.from({ length: 5_000 }, (_, user) => keysOf(user)));
  fold.apply([keysOf(0), keysOf(0)]);
  assert.equal(fold.all().length, 5_000);
  fold.apply([keysOf(0, 'E')]);
  assert.deepEqual([fold.userCount, usersOf(fold)[0], usersOf(fold).at(-1), [...fold.of('@u0:hs.test')]], [4_999, '@u2:hs.test', '@u0:hs.test', [keysOf(0), keysOf(0, 'E')]]);
});

test('I9 large ones are bounded in bytes, and what a checkpoint saves comes to the same again', () => {
  const large = Array.from({ length: 100 }, (_, at) => `${at}`.padEnd(200, 'x'));
  const fold = new DeviceKeysFold();
  for (let user = 0; user < 1_000; user++) fold.apply([keysOf(user, 'D', large)]);
  const saved = fold.all();
  assert.ok(saved.length > 50 && JSON.stringify(saved).length <= 2 * 1024 * 1024, `${saved.length}`);
  const again = new DeviceKeysFold();
  again.apply(saved);
  for (const one of [fold, again]) one.apply([keysOf(5_000), keysOf(5_001, 'D', large)]);
  assert.deepEqual(again.all(), fold.all());
});
