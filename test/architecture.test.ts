/** Holds src/ to the rules of docs/architecture.md. Beside each rule stands a source that breaks it, as a control. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { cycleFaults, directionFaults, doorFaults, globalFaults, sizeFaults, storePortFaults } from './support/house-rules.ts';
import { parseSource, readSourceFiles } from './support/source-files.ts';

const house = readSourceFiles('src');
const NO_FAULTS: string[] = [];

test('the whole house is read', () => {
  const paths = house.map(({ path }) => path);
  for (const path of ['src/main.ts', 'src/appservice/namespaces.ts', 'src/store/port.ts']) assert.ok(paths.includes(path), path);
  const imported = new Set(house.flatMap(({ imports }) => imports).filter((name) => name.startsWith('src/')));
  assert.deepEqual([...imported].filter((path) => !paths.includes(path)), [], 'imports of files that are not there');
});

test('imports point inward', () => assert.deepEqual(directionFaults(house), NO_FAULTS));
test('no imports go in a circle, type imports included', () => assert.deepEqual(cycleFaults(house), NO_FAULTS));
test('each package has one door', () => assert.deepEqual(doorFaults(house), NO_FAULTS));
test('time, chance and the environment are touched in their files only', () => assert.deepEqual(globalFaults(house), NO_FAULTS));
test('files and functions stay short', () => assert.deepEqual(sizeFaults(house), NO_FAULTS));
test('the store port stays small', () => assert.deepEqual(storePortFaults(house), NO_FAULTS));

test('no page has the marks of a merge in it', () => {
  const root = new URL('../', import.meta.url);
  const pages = [...readdirSync(root), ...readdirSync(new URL('docs/', root)).map((name) => `docs/${name}`)].filter((name) => name.endsWith('.md'));
  assert.ok(pages.includes('README.md') && pages.includes('docs/architecture.md'));
  assert.deepEqual(pages.filter((name) => /^(?:<{7}|>{7}) /m.test(readFileSync(new URL(name, root), 'utf8'))), NO_FAULTS);
});

/** Sources that break the direction rule, each in another form of import. */
const WRONG_DIRECTIONS: [path: string, text: string][] = [
  ['src/appservice/event.ts', "import type { Store } from '../store/port.ts';"],
  ['src/delivery/sender.ts', "import { openMongoStore } from '../store/mongo/open.ts';"],
  ['src/delivery/sender.ts', "import { openStore } from '../store/open.ts';"],
  ['src/delivery/sender.ts', "export { toStatus } from '../rpc/status.ts';"],
  ['src/delivery/sender.ts', "const event: import('../../gen/matrix/appservice/v1/event_pb.ts').Event = made;"],
  ['src/rpc/router-methods.ts', "const { Sender } = await import('../delivery/sender.ts');"],
  ['src/rpc/router-methods.ts', "const worker = new Worker(new URL('../store/sqlite/worker.ts', import.meta.url));"],
  ['src/store/port.ts', "import type { Room } from '../room/room-state.ts';"],
  ['src/store/sqlite/database.ts', "import { codeOf } from '../mongo/driver-error.ts';"],
  ['src/registration/vault.ts', "import { fold } from '../ingest/fold.ts';"],
  ['src/anywhere/new.ts', ''],
];
for (const [path, text] of WRONG_DIRECTIONS) {
  test(`control: ${path} with ${text || 'no rule for its room'} is a fault`, () => {
    assert.equal(directionFaults([parseSource(path, text)]).length, 1);
  });
}

test('control: what the rules allow is no fault', () => {
  const text = "import type { Entry } from '../store/segment.ts';\nimport { nextDelay } from '../appservice/backoff.ts';\nimport './lease.ts';";
  assert.deepEqual(directionFaults([parseSource('src/delivery/sender.ts', text)]), NO_FAULTS);
});

test('control: a circle through a type import is found, once', () => {
  const circle = [
    parseSource('src/a/one.ts', "import { two } from './two.ts';"),
    parseSource('src/a/two.ts', "import type { Three } from '../b/three.ts';"),
    parseSource('src/b/three.ts', "import { one } from '../a/one.ts';"),
  ];
  assert.deepEqual(cycleFaults(circle), ['src/a/one.ts → src/a/two.ts → src/b/three.ts → src/a/one.ts is a cycle.']);
  assert.deepEqual(cycleFaults(circle.slice(0, 2)), NO_FAULTS);
});

test('control: a package through another door is a fault, a part of it too', () => {
  const text = ['mongodb', 're2', 'node:sqlite', '@grpc/grpc-js', '@bufbuild/protobuf/wkt', 'node:timers/promises'].map((name) => `import '${name}';`).join('\n');
  assert.equal(doorFaults([parseSource('src/delivery/sender.ts', text)]).length, 6);
  assert.deepEqual(doorFaults([parseSource('src/rpc/status.ts', "import { create } from '@bufbuild/protobuf';")]), NO_FAULTS);
});

test('control: each use of time, chance or environment outside its file is a fault', () => {
  const uses = ['Date.now()', 'new Date()', 'setTimeout(f, 1)', 'const s = setInterval', 'globalThis.setImmediate(f)', 'performance.now()', 'Math.random()', 'AbortSignal.timeout(1)', 'process.hrtime.bigint()', "process.env['A']"];
  for (const use of uses) assert.equal(globalFaults([parseSource('src/ingest/queue.ts', use)]).length, 1, use);
  assert.deepEqual(globalFaults([parseSource('src/ingest/queue.ts', 'new Date(ms).toISOString(); pool.setTimeout(1); const o = { setTimeout: 1 };')]), NO_FAULTS);
  assert.deepEqual(globalFaults([parseSource('src/clock.ts', 'Date.now()'), parseSource('src/config.ts', 'process.env')]), NO_FAULTS);
  assert.equal(globalFaults([parseSource('src/clock.ts', 'process.env'), parseSource('src/config.ts', 'Date.now()')]).length, 2);
});

test('control: one line too many is a fault, in a file and in each form of function', () => {
  const body = (lines: number): string => '\n'.repeat(lines - 1);
  assert.equal(sizeFaults([parseSource('src/a.ts', '\n'.repeat(401))]).length, 1);
  for (const [head, tail] of [['function f() {', '}'], ['const f = () => {', '};'], ['class C { f() {', '} }'], ['class C { constructor() {', '} }']] as const) {
    assert.equal(sizeFaults([parseSource('src/a.ts', head + body(71) + tail)]).length, 1, head);
    assert.deepEqual(sizeFaults([parseSource('src/a.ts', head + body(70) + tail)]), NO_FAULTS);
  }
  assert.deepEqual(sizeFaults([parseSource('src/a.ts', '\n'.repeat(400))]), NO_FAULTS);
});

test('control: a fifteenth method in the store port is a fault, in both ways of writing one', () => {
  const port = (count: number): string => `interface Store { ${Array.from({ length: count }, (_, at) => (at % 2 === 0 ? `m${at}(): void;` : `m${at}: () => void;`)).join(' ')} size: number; }`;
  assert.deepEqual(storePortFaults([parseSource('src/store/port.ts', port(14))]), NO_FAULTS);
  assert.equal(storePortFaults([parseSource('src/store/port.ts', port(15))]).length, 1);
  assert.equal(storePortFaults([]).length, 1);
});
