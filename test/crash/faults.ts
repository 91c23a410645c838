/**
 * What the crash loop does to the world. A fault begins at once and heals by itself in the background, so that faults
 * overlap; one that cannot be had now (its router is down already, a member of the set is away) is passed over.
 */
import { appendFile } from 'node:fs/promises';
import { pause } from './child.ts';
import type { FaultProxy } from './fault-proxy.ts';
import type { StoreKind, World } from './world.ts';
import { APPSERVICES } from './traffic.ts';

export interface Scene {
  readonly world: World;
  readonly chance: () => number;
  /** Routers that are down or stopped. */
  readonly busyRouters: Set<number>;
  /** One member of the replica set at a time. */
  isStoreBusy: boolean;
  /** Hand-overs that did not end with exit code 0 and the like. */
  fault(text: string): void;
}

export interface Fault {
  readonly name: string;
  /** How often it comes, beside the others; 0 = only at its own time. */
  readonly weight: number;
  readonly stores: readonly StoreKind[];
  /** Resolves with its healing once it has begun; with null if it cannot be had now. */
  begin(scene: Scene): Promise<(() => Promise<void>) | null>;
}

const BOTH: readonly StoreKind[] = ['mongodb', 'sqlite'];
const MONGODB: readonly StoreKind[] = ['mongodb'];
const SQLITE: readonly StoreKind[] = ['sqlite'];
const PUSH_TIMEOUT_MS = 2_000;
const OUTAGE_MS = 60_000;

const between = ({ chance }: Scene, fromMs: number, toMs: number): number => fromMs + chance() * (toMs - fromMs);
const pick = <Item>({ chance }: Scene, items: readonly Item[]): Item | undefined => items[Math.floor(chance() * items.length)];

/** A router that nothing else is done to, for the time of `work`. */
function onRouter(scene: Scene, work: (at: number) => Promise<void>): (() => Promise<void>) | null {
  const at = pick(scene, [...Array(scene.world.routers.count).keys()].filter((slot) => !scene.busyRouters.has(slot)));
  if (at === undefined) return null;
  scene.busyRouters.add(at);
  return async () => {
    try {
      await work(at);
    } finally {
      scene.busyRouters.delete(at);
    }
  };
}

const killRouter: Fault = {
  name: 'router killed',
  weight: 20,
  stores: BOTH,
  begin: async (scene) => {
    const delayMs = between(scene, 0, 800);
    const { world } = scene;
    return onRouter(scene, async (at) => {
      world.failedOver();
      await world.routers.kill(at);
      await pause(delayMs);
      await world.routers.restart(at);
    });
  },
};

const stopRouter = (name: string, weight: number, stores: readonly StoreKind[], fromMs: number, toMs: number): Fault => ({
  name,
  weight,
  stores,
  begin: async (scene) => {
    const forMs = between(scene, fromMs, toMs);
    const { world } = scene;
    return onRouter(scene, async (at) => {
      world.failedOver();
      world.routers.signal(at, 'SIGSTOP');
      await pause(forMs);
      world.routers.signal(at, 'SIGCONT');
    });
  },
});

const handOver: Fault = {
  name: 'router handed over',
  weight: 8,
  stores: BOTH,
  begin: async (scene) => {
    const { world } = scene;
    return onRouter(scene, async (at) => {
      // While the store is away it cannot give back what it holds, and with an appservice that hangs it gives up in the end.
      world.failedOver();
      const code = await world.routers.terminate(at);
      if (code !== 0) scene.fault(`a router that was asked to end did so with code ${code}: ${world.routers.lines(at).slice(-3).join(' | ')}`);
      await world.routers.restart(at);
    });
  },
};

/** Something between the routers and the store; which member, and what is done to its proxy. */
const onStore = (name: string, weight: number, isFailover: boolean, work: (proxy: FaultProxy, scene: Scene) => Promise<void>, member: 'primary' | 'any' = 'primary'): Fault => ({
  name,
  weight,
  stores: MONGODB,
  begin: async (scene) => {
    const { mongod } = scene.world;
    if (mongod === null || scene.isStoreBusy) return null;
    const at = member === 'primary' ? await mongod.primary() : Math.floor(scene.chance() * mongod.count);
    if (at === null) return null;
    scene.isStoreBusy = true;
    if (isFailover) scene.world.failedOver();
    return async () => {
      await work(mongod.proxy(at), scene);
      mongod.proxy(at).heal();
      scene.isStoreBusy = false;
    };
  },
});

const resetStore = onStore('store connections reset', 12, false, async (proxy, scene) => proxy.reset(scene.chance() < 0.5 ? 1 : 0.4, scene.chance), 'any');
const stallStore = onStore('store connections stalled', 6, true, async (proxy, scene) => {
  proxy.stall();
  await pause(between(scene, 200, scene.chance() < 0.2 ? 7_000 : 2_000));
});
const loseStoreAnswers = onStore('store answers lost', 12, true, async (proxy, scene) => {
  proxy.loseAnswers();
  await pause(between(scene, 20, 400));
});
const partition = onStore('primary cut off', 3, true, async (proxy, scene) => {
  proxy.shut();
  await pause(between(scene, 1_000, 4_000));
});

const onMember = (name: string, weight: number, choose: 'primary' | 'secondary', work: (at: number, scene: Scene) => Promise<void>): Fault => ({
  name,
  weight,
  stores: MONGODB,
  begin: async (scene) => {
    const { mongod } = scene.world;
    if (mongod === null || scene.isStoreBusy) return null;
    const primary = await mongod.primary();
    if (primary === null) return null;
    scene.isStoreBusy = true;
    scene.world.failedOver();
    return async () => {
      await work(choose === 'primary' ? primary : (primary + 1) % mongod.count, scene);
      await mongod.untilPrimary();
      scene.isStoreBusy = false;
    };
  },
});

const stepDown = onMember('primary stepped down', 5, 'primary', async (at, { world }) => world.mongod?.stepDown(at));
const killMember = async (at: number, scene: Scene): Promise<void> => {
  await scene.world.mongod?.kill(at);
  await pause(between(scene, 0, 2_000));
  scene.world.mongod?.restart(at);
};
const killPrimary = onMember('primary killed', 4, 'primary', killMember);
const killSecondary = onMember('secondary killed', 2, 'secondary', killMember);
const outage = (name: string, weight: number, fromMs: number, toMs: number): Fault =>
  onMember(name, weight, 'primary', async (_at, scene) => {
    const { mongod } = scene.world;
    if (mongod === null) return;
    const members = [...Array(mongod.count).keys()];
    await Promise.all(members.map((at) => mongod.kill(at)));
    await pause(between(scene, fromMs, toMs));
    for (const at of members) mongod.restart(at);
  });

const onAppservice = (name: string, weight: number, work: (proxy: FaultProxy, scene: Scene) => Promise<number>): Fault => ({
  name,
  weight,
  stores: BOTH,
  begin: async (scene) => {
    const id = pick(scene, APPSERVICES)?.id ?? '';
    const proxy = scene.world.appservices.proxy(id);
    return async () => {
      const lost = await work(proxy, scene);
      scene.world.lost(id, lost);
      proxy.heal();
    };
  },
});

const resetAppservice = onAppservice('appservice connections reset', 10, async (proxy) => {
  proxy.reset();
  return 1;
});
const stallAppservice = onAppservice('appservice stalled', 6, async (proxy, scene) => {
  const forMs = between(scene, 100, 3_000);
  proxy.stall();
  await pause(forMs);
  return 1 + Math.ceil(forMs / PUSH_TIMEOUT_MS);
});
const loseAppserviceAnswers = onAppservice('appservice answers lost', 8, async (proxy, scene) => {
  proxy.loseAnswers();
  await pause(between(scene, 50, 400));
  return 2;
});

const fullDisk: Fault = {
  name: 'disk full',
  weight: 8,
  stores: SQLITE,
  begin: async (scene) => {
    const { disk } = scene.world;
    if (disk === null || !disk.isMounted || scene.isStoreBusy) return null;
    scene.isStoreBusy = true;
    await disk.fill();
    const forMs = between(scene, 200, 2_000);
    return async () => {
      await pause(forMs);
      await disk.free();
      scene.isStoreBusy = false;
    };
  },
};

/** What a power cut may leave behind the last write that was answered: the beginning of another. */
const tornLog: Fault = {
  name: 'router killed, write-ahead log torn',
  weight: 12,
  stores: SQLITE,
  begin: async (scene) => {
    const torn = Math.floor(between(scene, 1, 12_000));
    const { world } = scene;
    if (scene.isStoreBusy) return null;
    return onRouter(scene, async (at) => {
      world.failedOver();
      await world.routers.kill(at);
      await appendFile(world.disk?.path('router.db-wal') ?? '', Buffer.alloc(torn, 0x5a)).catch(() => undefined);
      await world.routers.restart(at);
    });
  },
};

export const FAULTS: readonly Fault[] = [
  killRouter,
  stopRouter('router stopped beyond its lease', 8, MONGODB, 5_200, 8_000),
  stopRouter('router stopped for a moment', 6, BOTH, 50, 2_500),
  handOver,
  resetStore,
  stallStore,
  loseStoreAnswers,
  partition,
  stepDown,
  killPrimary,
  killSecondary,
  outage('MongoDB stopped for seconds', 1, 2_000, 7_000),
  resetAppservice,
  stallAppservice,
  loseAppserviceAnswers,
  fullDisk,
  tornLog,
];

/** The rare one, which has its place in the loop. */
export const LONG_OUTAGE = outage('MongoDB stopped for a minute', 0, OUTAGE_MS, OUTAGE_MS);
