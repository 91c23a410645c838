/** What `npm run bench -- …` is told. */
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { BenchOptions, StoreKind } from './scenario.ts';
import { STORES } from './scenario.ts';

export const USAGE = `npm run bench [-- --scenario 1,3 --store sqlite,mongodb --seconds N --rounds N --json FILE --folder FOLDER
                 --profile FOLDER --against FOLDER]

  --scenario  which of 1 to 8; all if left out
  --store     on which stores; both if left out
  --seconds   length of one measurement, 1 to 60; 5 if left out
  --rounds    measurements of each side in turn, 1 to 9; the median counts; 3 if left out
  --json      where the results go beside the table; .cache/bench.json if left out
  --folder    where the stores keep their files, for the measure of another disk; .cache if left out
  --profile   makes CPU profiles of the router in scenarios 1, 2 and 4, in rounds of their own
  --against   another checkout of the router, with its dependencies: the traffic of scenarios 1 and 2 alone, both routers
              in turn; --rounds may go to 99, an odd number of short ones tells most`;

const SCENARIOS = [1, 2, 3, 4, 5, 6, 7, 8];
const SECONDS_MAX = 60;
const ROUNDS_MAX = 9;
const AGAINST_ROUNDS_MAX = 99;

/** The options, or what is wrong with the arguments. Files go to `folderDefault` unless they say otherwise. */
export function optionsFrom(args: readonly string[], folderDefault: string): BenchOptions | string {
  let values: Partial<Record<'scenario' | 'store' | 'seconds' | 'rounds' | 'json' | 'folder' | 'profile' | 'against', string>>;
  try {
    const option = { type: 'string' } as const;
    ({ values } = parseArgs({ args: [...args], options: { scenario: option, store: option, seconds: option, rounds: option, json: option, folder: option, profile: option, against: option } }));
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const scenarios = values.scenario === undefined ? SCENARIOS : values.scenario.split(',').map(Number);
  if (!scenarios.every((number) => SCENARIOS.includes(number))) return `--scenario takes numbers from 1 to 8, with commas between them`;
  const stores = (values.store?.split(',') ?? STORES).map((name) => STORES.find((store) => store === name));
  if (!stores.every((store): store is StoreKind => store !== undefined)) return `--store takes ${STORES.join(' and ')}, with a comma between them`;
  const seconds = Number(values.seconds ?? 5);
  const rounds = Number(values.rounds ?? 3);
  if (!(seconds >= 1 && seconds <= SECONDS_MAX)) return `--seconds takes a number from 1 to ${SECONDS_MAX}`;
  const roundsMax = values.against === undefined ? ROUNDS_MAX : AGAINST_ROUNDS_MAX;
  if (!(Number.isInteger(rounds) && rounds >= 1 && rounds <= roundsMax)) return `--rounds takes a whole number from 1 to ${roundsMax}`;
  return {
    scenarios,
    stores,
    seconds,
    rounds,
    jsonFile: values.json ?? join(folderDefault, 'bench.json'),
    folder: values.folder ?? folderDefault,
    profileFolder: values.profile === undefined ? null : resolve(values.profile),
    againstFolder: values.against === undefined ? null : resolve(values.against),
  };
}
