/**
 * The spec reporter of node:test, with two changes: the totals come last, after the failures, in the form `# tests 12`;
 * and where MongoDB could not be had, a line in capitals before them says what was not tested.
 */
import { spec } from 'node:test/reporters';
import { PassThrough } from 'node:stream';
import type { TestEvent } from 'node:test/reporters';

/** The names of the totals, as the runner reports them at the end of the outermost level. */
const TOTAL = /^(?:tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/;

export default async function* reporter(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const totals: string[] = [];
  const shown = new PassThrough({ objectMode: true });
  const reading = (async (): Promise<void> => {
    for await (const event of source) {
      const total = totalOf(event);
      if (total === undefined) shown.write(event);
      else totals.push(total);
    }
    shown.end();
  })();
  for await (const text of shown.pipe(new spec())) yield String(text);
  await reading;
  yield '\n';
  if (process.env['ROUTER_TEST_MONGODB_URI'] === 'none') {
    yield 'MONGODB COULD NOT BE HAD: ITS TESTS WERE SKIPPED. SET ROUTER_TEST_MONGODB_URI OR INSTALL mongod TO RUN THEM.\n';
  }
  for (const total of totals) yield `# ${total}\n`;
}

function totalOf(event: TestEvent): string | undefined {
  if (event.type !== 'test:diagnostic' || event.data.nesting !== 0) return undefined;
  return TOTAL.test(event.data.message) ? event.data.message : undefined;
}
