/** The example in Java, built and run as its README says. */
import { join } from 'node:path';
import { test } from 'node:test';
import { assertRepeats, assertShown, build, CACHE, ExampleWorld, ROOT, works } from './support/example-world.ts';
import type { Example } from './support/example-world.ts';

const MISSING = 'MAVEN WITH JAVA 17 IS NOT HERE: ITS EXAMPLE WAS NOT RUN';
const folder = join(ROOT, 'examples', 'java');
const options = ['--batch-mode', '--quiet', `-Dmaven.repo.local=${join(CACHE, 'maven')}`];
const isHere = await works('mvn', ['--version']);

/** Java takes the folder for temporary files from nowhere else. */
function exampleIn(world: ExampleWorld): Example {
  return { command: 'mvn', args: [...options, 'exec:java'], cwd: folder, env: { MAVEN_OPTS: `-Djava.io.tmpdir=${world.folder} -XX:-UsePerfData` } };
}

test('R147 I7 the Java example runs against a live router', { skip: !isHere && MISSING }, async () => {
  await build('mvn', [...options, 'compile'], { cwd: folder });
  await using world = await ExampleWorld.open();
  assertShown(await world.run(exampleIn(world)));
});

test('I7 the Java example waits as a refusal says, and finds by its positions what a lost answer had taken over', { skip: !isHere && MISSING }, async () => {
  await using world = await ExampleWorld.open();
  await assertRepeats(world, exampleIn(world));
});
