/** The example in Go, built and run as its README says. */
import { join } from 'node:path';
import { test } from 'node:test';
import { assertRepeats, assertShown, build, CACHE, ExampleWorld, ROOT, works } from './support/example-world.ts';
import type { Example } from './support/example-world.ts';

const MISSING = 'GO IS NOT HERE: ITS EXAMPLE WAS NOT RUN';
const folder = join(ROOT, 'examples', 'go');
const env = { GOMODCACHE: join(CACHE, 'go-mod'), GOCACHE: join(CACHE, 'go-build'), GOFLAGS: '-modcacherw -buildvcs=false' };
const example: Example = { command: join(CACHE, 'example-go'), args: [], cwd: folder };
const isHere = await works('go', ['version']);

test('R147 I7 the Go example runs against a live router', { skip: !isHere && MISSING }, async () => {
  await build(process.execPath, [join(ROOT, 'setup', 'run.mjs'), 'generate', '--template', 'examples/go/buf.gen.yaml'], { cwd: ROOT, env });
  await build('go', ['build', '-o', example.command, '.'], { cwd: folder, env });
  await using world = await ExampleWorld.open();
  assertShown(await world.run(example));
});

test('I7 the Go example waits as a refusal says, and finds by its positions what a lost answer had taken over', { skip: !isHere && MISSING }, async () => {
  await using world = await ExampleWorld.open();
  await assertRepeats(world, example);
});
