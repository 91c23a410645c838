/** What the router's own metrics tell of its store and its groups, between two looks. */

export interface StoreCalls {
  /** Events that one append made durable. */
  readonly events_per_append: number;
  readonly append_ms: number;
  readonly appends_per_second: number;
  /** Delivery states: one call may carry those of many appservices. */
  readonly state_write_ms: number;
  readonly state_writes_per_second: number;
}

const STORE = 'appservice_router_store_call_duration_seconds';
const GROUP = 'appservice_router_ingest_group_entries';

export class StoreCallWatch {
  readonly #httpAddress: string;
  readonly #before: ReadonlyMap<string, number>;
  readonly #startMs = performance.now();

  private constructor(httpAddress: string, before: ReadonlyMap<string, number>) {
    this.#httpAddress = httpAddress;
    this.#before = before;
  }

  static async begin(httpAddress: string): Promise<StoreCallWatch> {
    return new StoreCallWatch(httpAddress, await scrape(httpAddress));
  }

  /** Call it at the end of the load; what was asked before still counts when it is answered. */
  async end(): Promise<StoreCalls> {
    const elapsedSeconds = (performance.now() - this.#startMs) / 1_000;
    const now = await scrape(this.#httpAddress);
    const grown = (name: string): number => (now.get(name) ?? 0) - (this.#before.get(name) ?? 0);
    const count = (method: string): number => grown(`${STORE}_count ${method}`);
    const meanMs = (method: string): number => (grown(`${STORE}_sum ${method}`) / Math.max(1, count(method))) * 1_000;
    return {
      events_per_append: grown(`${GROUP}_sum`) / Math.max(1, grown(`${GROUP}_count`)),
      append_ms: meanMs('append'),
      appends_per_second: count('append') / elapsedSeconds,
      state_write_ms: meanMs('writeStates'),
      state_writes_per_second: count('writeStates') / elapsedSeconds,
    };
  }
}

/** Sums and counts by name and method, outcomes and servers added up. */
async function scrape(httpAddress: string): Promise<ReadonlyMap<string, number>> {
  const text = await (await fetch(`http://${httpAddress}/metrics`)).text();
  const found = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [, name = '', labels = '', value = '0'] = /^(\w+_(?:sum|count))\{(.*)\} (\S+)$/.exec(line) ?? [];
    if (!name.startsWith(STORE) && !name.startsWith(GROUP)) continue;
    const method = /method="(\w+)"/.exec(labels)?.[1];
    const key = method === undefined ? name : `${name} ${method}`;
    found.set(key, (found.get(key) ?? 0) + Number(value));
  }
  return found;
}
