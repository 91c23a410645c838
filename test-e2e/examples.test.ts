/** The examples in TypeScript and Python, each against a router of its own, built and run as their READMEs say. */
import { join } from 'node:path';
import { test } from 'node:test';
import { assertRepeats, assertShown, build, CACHE, ExampleWorld, ROOT, works } from './support/example-world.ts';
import type { Example } from './support/example-world.ts';

const PYTHON = '/usr/bin/python3';
const MISSING = 'PYTHON WITH venv IS NOT HERE: ITS EXAMPLE WAS NOT RUN';
const folder = join(ROOT, 'examples', 'python');
const home = join(CACHE, 'example-python');
const venvPython = join(home, 'bin', 'python');
const python: Example = { command: venvPython, args: ['main.py'], cwd: folder, env: { PYTHONDONTWRITEBYTECODE: '1' } };
const isPythonHere = await works(PYTHON, ['-c', 'import venv, ensurepip']);

test('R147 I7 the TypeScript example runs against a live router', async () => {
  await using world = await ExampleWorld.open();
  assertShown(await world.run({ command: process.execPath, args: ['--disable-warning=ExperimentalWarning', join(ROOT, 'examples', 'typescript', 'main.ts')], cwd: ROOT }));
});

test('R147 I7 the Python example runs against a live router', { skip: !isPythonHere && MISSING }, async () => {
  await build(PYTHON, ['-m', 'venv', home], { cwd: folder });
  await build(venvPython, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt'], { cwd: folder });
  await build('sh', ['generate.sh', venvPython], { cwd: folder });
  await using world = await ExampleWorld.open();
  assertShown(await world.run(python));
});

test('I7 the Python example waits as a refusal says, and finds by its positions what a lost answer had taken over', { skip: !isPythonHere && MISSING }, async () => {
  await using world = await ExampleWorld.open();
  await assertRepeats(world, python);
});
