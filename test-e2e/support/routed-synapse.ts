/** Synapse with the router between it and its appservices, set up as docs/synapse.md says. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { Json } from './matrix-client.ts';
import { Router } from './router.ts';
import { Synapse } from './synapse.ts';
import { Tap } from './tap.ts';
import type { World } from './world.ts';

export interface RoutedSynapse {
  readonly router: Router;
  readonly synapse: Synapse;
  /** What Synapse sends to the router. */
  readonly tap: Tap;
}

/** `registrations`: files with the real urls of the appservices. `settings`: of the router, beside those of the set-up. */
export async function routedSynapse(world: World, registrations: readonly string[], settings: Readonly<Record<string, string>> = {}): Promise<RoutedSynapse> {
  const synapse = world.use(await Synapse.configure(world.python, join(world.folder, 'synapse'), { registrations: [] }));
  return { synapse, ...(await putRouterBefore(synapse, world, registrations, settings)) };
}

/** The same with a Synapse that does not run now; it is started. */
export async function putRouterBefore(synapse: Synapse, { folder, use }: World, registrations: readonly string[], settings: Readonly<Record<string, string>> = {}): Promise<Omit<RoutedSynapse, 'synapse'>> {
  const router = use(await Router.configure(join(folder, 'router')));
  const tap = use(await Tap.start(router.url));
  const setup = join(folder, 'setup');
  await router.command(['synapse-setup', setup, ...registrations, '--router-url', tap.url]);
  router.settings = { ROUTER_INGRESS_TOKEN_FILE: join(setup, 'ingress-tokens.json'), ROUTER_HOMESERVER_URL: synapse.url, ...settings };
  await router.start();
  await router.command(['register', ...registrations]);
  synapse.reconfigure({ registrations: [], settings: parse(readFileSync(join(setup, 'homeserver-lines.yaml'), 'utf8')) as Json });
  await synapse.start();
  return { router, tap };
}
