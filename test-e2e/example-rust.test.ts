/** The example in Rust, built and run as its README says. */
import { join } from 'node:path';
import { test } from 'node:test';
import { assertRepeats, assertShown, build, CACHE, ExampleWorld, ROOT, works } from './support/example-world.ts';
import type { Example } from './support/example-world.ts';

const MISSING = 'RUST IS NOT HERE: ITS EXAMPLE WAS NOT RUN';
const folder = join(ROOT, 'examples', 'rust');
const env = { CARGO_HOME: join(CACHE, 'cargo'), CARGO_TARGET_DIR: join(CACHE, 'example-rust') };
const example: Example = { command: join(env.CARGO_TARGET_DIR, 'debug', 'homeserver'), args: [], cwd: folder };
const isHere = await works('cargo', ['--version']);

test('R147 I7 the Rust example runs against a live router', { skip: !isHere && MISSING }, async () => {
  await build('cargo', ['build', '--quiet'], { cwd: folder, env });
  await using world = await ExampleWorld.open();
  assertShown(await world.run(example));
});

test('I7 the Rust example waits as a refusal says, and finds by its positions what a lost answer had taken over', { skip: !isHere && MISSING }, async () => {
  await using world = await ExampleWorld.open();
  await assertRepeats(world, example);
});
