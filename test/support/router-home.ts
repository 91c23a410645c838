/** A data directory with the routers that run on it, one after the other or in vain. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Appservice } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { SubmitEventsResponse } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { RouterClient } from './router-client.ts';
import { RouterProcess } from './router-process.ts';
import type { LogLine } from './router-process.ts';
import { eventJson } from './routing.ts';

/** Short waits between attempts, so that tests need not wait for them. */
const QUICK = { ROUTER_BACKOFF_FIRST_MS: '20', ROUTER_BACKOFF_MAX_MS: '100' };

export type Environment = Readonly<Record<string, string>>;

export class RouterHome implements AsyncDisposable {
  readonly dir: string;
  readonly #routers: RouterProcess[] = [];

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async make(): Promise<RouterHome> {
    return new RouterHome(await mkdtemp(join(tmpdir(), 'router-home-')));
  }

  path(...names: string[]): string {
    return join(this.dir, ...names);
  }

  async start(env: Environment = {}): Promise<RouterProcess> {
    const router = await RouterProcess.start(this.dir, { ...QUICK, ...env });
    this.#routers.push(router);
    return router;
  }

  /** A start that is expected to end by itself: its exit code, its log of level error, and what it wrote beside the log. */
  async startInVain(env: Environment = {}, args?: readonly string[]): Promise<{ code: number | null; errors: readonly LogLine[]; text: string }> {
    const router = RouterProcess.spawn(this.dir, env, args);
    this.#routers.push(router);
    const closed = once(router.child, 'close');
    const code = await router.exited;
    await closed;
    return { code, errors: router.lines.filter(({ level }) => level === 'error'), text: router.otherOutput.join('\n') };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const router of this.#routers) await router[Symbol.asyncDispose]();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** A registration of all rooms, as an appservice ships it. */
export function registrationYaml(id: string, url: string | null, more = ''): string {
  return `id: ${id}
url: ${url}
as_token: as-${id}-long-enough
hs_token: hs-${id}-long-enough
sender_localpart: _${id}_bot
namespaces:
  rooms:
    - regex: "!.*"
      exclusive: false
${more}`;
}

export async function put(admin: RouterClient, yaml: string, options: { readonly resumeParked?: boolean; readonly validateOnly?: boolean } = {}): Promise<void> {
  await admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'yaml', value: yaml }, ...options });
}

/** Submits so many events without positions; their ids are `$name-1` … */
export async function submit(homeserver: RouterClient, name: string, count: number): Promise<{ ids: string[]; answer: SubmitEventsResponse }> {
  const ids = Array.from({ length: count }, (_, at) => `$${name}-${at + 1}`);
  const events = ids.map((id) => ({ json: eventJson({ id }) }));
  return { ids, answer: await homeserver.call(AppserviceRouter.method.submitEvents, { events }) };
}

export async function statusOf(admin: RouterClient, appserviceId: string): Promise<Appservice> {
  const { appservice } = await admin.call(AppserviceAdmin.method.getAppservice, { appserviceId });
  if (appservice === undefined) throw new Error('an answer without an appservice');
  return appservice;
}

/** Resolves when an attempt for this appservice has failed, as the log tells. */
export async function failedAttempt(router: RouterProcess, appserviceId: string): Promise<LogLine> {
  return router.line((line) => line.msg === 'delivery attempt' && line['appservice_id'] === appserviceId && line['outcome'] !== 'delivered');
}
