/** I9: who gets an event is what a naive matcher says, whatever the registrations, the rooms' histories and the events. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { referenceRoutes } from '../support/reference-matcher.ts';
import type { Mistake, Step } from '../support/reference-matcher.ts';
import { history } from '../support/room-histories.ts';
import { compile, RoutedWorld } from '../support/routed-world.ts';
import { SERVER } from '../support/routing.ts';

const agreement = (mistake?: Mistake): fc.IAsyncProperty<[Step[]]> =>
  fc.asyncProperty(history, async (steps) => {
    const routes = await new RoutedWorld(await compile([])).run(steps);
    assert.deepEqual(routes, referenceRoutes(SERVER, steps, mistake));
  });

test('I9 R21 R22 R23 R24 R26 R29 R30 R31 R32 R33 R34 R35 R36 R37 R38 R39 R40 R41 R42 R43 R44 R46 every event goes to whom a naive matcher names', async () => {
  await fc.assert(agreement(), { numRuns: 1500, seed: 9 });
});

const MISTAKES: readonly Mistake[] = [
  'R22 only the first branch is anchored',
  'R26 a name that ends alike is local',
  'R29 a membership target is nobody',
  'R32 the own user is nobody',
  'R33 an invited user counts',
  'R34 a remote member counts',
  'R35 a remote sender counts',
  'R36 room ids do not count',
  'R37 aliases do not count',
  'R38 a sender counts only while joined',
  'R39 a user that left still counts',
  'R41 a removed alias still counts',
  'R46 no URL makes no difference',
];

for (const mistake of MISTAKES) {
  test(`I9 control: the comparison notices a matcher with the mistake "${mistake}"`, async () => {
    const { failed } = await fc.check(agreement(mistake), { numRuns: 1500, seed: 9, endOnFailure: true });
    assert.equal(failed, true);
  });
}
