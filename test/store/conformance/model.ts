/** The log against a model in memory: any sequence of appends and trims, any reading. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Store, TrimOutcome } from '../../../src/store/port.ts';
import type { Entry } from '../../../src/store/segment.ts';
import { MemoryLog } from '../../support/memory-store.ts';
import type { ConformanceCase } from './world.ts';
import { ALL_SEGMENTS, byText, bytesOf, readable, readableEntry, segmentOf } from './world.ts';

const IDS = ['irc', 'mail', '__proto__'];

const routeChoice = fc.uniqueArray(fc.nat({ max: 11 }), { maxLength: 8 }).map((indexes) => indexes.toSorted((left, right) => left - right));
const appendStep = fc.record({ kind: fc.constant('append' as const), times: fc.integer({ min: 1, max: 8 }), sizes: fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 12 }), routes: fc.tuple(routeChoice, routeChoice, routeChoice), firstEphemeral: fc.nat({ max: 6 }) });
const readStep = fc.record({ kind: fc.constant('read' as const), id: fc.constantFrom(...IDS), after: fc.nat({ max: 400 }), length: fc.nat({ max: 200 }), entriesMax: fc.integer({ min: 1, max: 30 }), bytesMax: fc.integer({ min: 1, max: 600 }) });
const measureStep = fc.record({ kind: fc.constant('measure' as const), after: fc.tuple(fc.nat({ max: 400 }), fc.nat({ max: 400 }), fc.nat({ max: 400 })) });
const trimStep = fc.record({ kind: fc.constant('trim' as const), delivered: fc.tuple(fc.nat({ max: 400 }), fc.nat({ max: 400 }), fc.nat({ max: 400 })), through: fc.nat({ max: 400 }), expiredThrough: fc.nat({ max: 400 }), cut: fc.tuple(fc.nat({ max: 400 }), fc.nat({ max: 400 }), fc.nat({ max: 400 })) });
const steps = fc.array(fc.oneof({ weight: 4, arbitrary: appendStep }, { weight: 4, arbitrary: readStep }, { weight: 1, arbitrary: measureStep }, { weight: 1, arbitrary: trimStep }), { minLength: 5, maxLength: 25 });

type Step = typeof steps extends fc.Arbitrary<(infer One)[]> ? One : never;
type AppendStep = Extract<Step, { kind: 'append' }>;

/** Ranges of the indexes, those beyond the entries left out; neighbours join. */
function rangesOf(indexes: readonly number[], count: number): number[] {
  const ranges: number[] = [];
  for (const index of indexes.filter((one) => one < count)) {
    if (ranges.length > 0 && ranges[ranges.length - 1] === index - 1) ranges[ranges.length - 1] = index;
    else ranges.push(index, index);
  }
  return ranges;
}

function segmentFrom(serverName: string, tail: number, { sizes, routes, firstEphemeral }: AppendStep): ReturnType<typeof segmentOf> {
  const entries = sizes.map((size, at): Entry => ({ kind: at >= firstEphemeral ? 'ephemeral' : 'event', json: bytesOf(`${tail + at}${'.'.repeat(size)}`) }));
  const chosen = IDS.map((id, at) => [id, rangesOf(routes[at] ?? [], entries.length)] as const).filter(([, ranges]) => ranges.length > 0);
  return segmentOf(serverName, tail + 1, { entries, routes: chosen });
}

async function perform(step: Step, serverName: string, store: Store, model: MemoryLog): Promise<void> {
  if (step.kind === 'append') {
    for (let time = 0; time < step.times; time++) {
      const segment = segmentFrom(serverName, model.tail, step);
      assert.deepEqual(await store.append(segment), await model.append(segment));
    }
  } else if (step.kind === 'read') {
    const read = async (log: Store | MemoryLog): Promise<unknown[]> => (await log.readRoute(serverName, step.id, step.after, step.after + step.length, step)).map(readableEntry);
    assert.deepEqual(await read(store), await read(model));
  } else if (step.kind === 'measure') {
    const after = new Map(IDS.map((id, at) => [id, step.after[at] ?? 0]));
    const measure = async (log: Store | MemoryLog): Promise<unknown> => new Set(await log.measureRoutes(serverName, after, model.tail));
    assert.deepEqual(await measure(store), await measure(model));
  } else {
    const deliveredPositions = new Map(IDS.map((id, at) => [id, step.delivered[at] ?? 0]));
    const expired = { beforeMs: segmentOf(serverName, step.expiredThrough).timeMs, cutThrough: new Map(IDS.map((id, at) => [id, Math.max(step.delivered[at] ?? 0, step.cut[at] ?? 0)])) };
    const request = { after: 0, through: step.through, beforeMs: Number.MAX_SAFE_INTEGER, deliveredPositions, expired, segmentsMax: 1_000 };
    const sorted = (outcome: TrimOutcome): TrimOutcome => ({ ...outcome, expired: outcome.expired.toSorted((one, other) => byText(one.appserviceId, other.appserviceId)) });
    assert.deepEqual(sorted(await store.trim(serverName, request)), sorted(await model.trim(serverName, request)));
  }
}

export const modelCases: readonly ConformanceCase[] = [
  {
    title: 'I1 I2 I9 does as the model does, whatever is appended, read, measured and trimmed',
    run: async ({ store, second, fresh }) => {
      await fc.assert(
        fc.asyncProperty(steps, async (all) => {
          const serverName = fresh();
          const model = new MemoryLog();
          for (const [at, step] of all.entries()) await perform(step, serverName, at % 2 === 0 ? store : second, model);
          assert.deepEqual((await store.readSegments(serverName, 1, ALL_SEGMENTS)).map(readable), model.segments.map(readable));
        }),
        { numRuns: 40, seed: 20_260_101 },
      );
    },
  },
];
