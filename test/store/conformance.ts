/**
 * The conformance suite of the store port: what every adapter must do, whoever its database is. One call declares it for
 * one adapter. The adapter is opened once for all cases; each case keeps to server names and replica ids of its own.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { appendCases } from './conformance/append.ts';
import { foldCases } from './conformance/fold.ts';
import { lifeCases } from './conformance/life.ts';
import { modelCases } from './conformance/model.ts';
import { auditCases } from './conformance/audit.ts';
import { quarantineCases } from './conformance/quarantine.ts';
import { readCases } from './conformance/read.ts';
import { replicaCases } from './conformance/replica.ts';
import { routeCases } from './conformance/route.ts';
import { stateCases } from './conformance/state.ts';
import { trimCases } from './conformance/trim.ts';
import { World } from './conformance/world.ts';
import { wholeCases } from './conformance/whole.ts';
import type { ConformanceCase, ConformanceSubject } from './conformance/world.ts';

export type { ConformanceSubject };

/** What the issue asks of the suite; fewer is a mistake in its making. */
const CASES_MIN = 80;

const GROUPS: Readonly<Record<string, readonly ConformanceCase[]>> = {
  append: appendCases,
  readSegments: readCases,
  'readRoute and measureRoutes': routeCases,
  trim: trimCases,
  fold: foldCases,
  states: stateCases,
  heartbeat: replicaCases,
  wholeFrom: wholeCases,
  quarantine: quarantineCases,
  audit: auditCases,
  model: modelCases,
  // Last, for it closes the store.
  life: lifeCases,
};

/** Declares the suite for one adapter, named in the report, and tells how many cases it ran. */
export function describeStoreConformance(name: string, subject: ConformanceSubject): void {
  describe(`store conformance: ${name}`, () => {
    let world: World;
    before(async () => {
      world = await World.open(subject);
    });
    after(async () => {
      await world[Symbol.asyncDispose]();
    });
    let caseCount = 0;
    for (const [group, cases] of Object.entries(GROUPS)) {
      describe(group, () => {
        for (const { title, run, needsDurable = false } of cases) {
          if (needsDurable && !subject.isDurable) continue;
          caseCount++;
          test(title, async () => {
            await run(world);
          });
        }
      });
    }
    test(`has run ${caseCount} cases on ${name}`, (context) => {
      context.diagnostic(`conformance cases on ${name}: ${caseCount}`);
      assert.ok(caseCount >= CASES_MIN, `${caseCount} cases`);
    });
  });
}
