/**
 * The operator's half for one homeserver: what the admin service calls (contract section 2).
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { Registration } from '../appservice/registration.ts';
import type { Delivery } from '../delivery/delivery.ts';
import type { EventFeed } from '../event-feed.ts';
import type { AdminPort, AppserviceStatus, ExplainRoutingRequest, Page, PutRegistrationRequest, RegistrationWarning, RoutingExplanation } from '../rpc/ports.ts';
import { readRegistration, registrationFromYaml } from '../registration/registration-yaml.ts';
import type { RegistrationRules } from '../registration/registration-rules.ts';
import type { FieldProblem } from '../registration/yaml-fields.ts';
import type { Registrar } from './registrar.ts';
import { explainedRouting } from './routing-explainer.ts';
import type { ExplainedHomeserver } from './routing-explainer.ts';

export interface AppserviceAdminOptions {
  readonly serverName: string;
  readonly registrar: Registrar;
  readonly delivery: Delivery;
  readonly feed: EventFeed;
  readonly explained: ExplainedHomeserver;
  readonly rules: RegistrationRules;
}

export class AppserviceAdmin implements AdminPort {
  readonly #options: AppserviceAdminOptions;

  constructor(options: AppserviceAdminOptions) {
    this.#options = options;
  }

  async putRegistration(request: PutRegistrationRequest): Promise<{ registration: Registration; warnings: readonly RegistrationWarning[] }> {
    const { registrar, rules } = this.#options;
    const { source } = request;
    const others = registrar.list().flatMap(({ registration }) => registration ?? []);
    const reading = source.kind === 'yaml' ? registrationFromYaml(source.text, rules, others) : readRegistration(source.registration, rules, others);
    if (reading.kind === 'invalid') throw invalidRegistration(request.source.kind, reading.problems);
    const { registration, warnings } = reading;
    if (request.validateOnly) registrar.check(registration, request.resumeParked);
    else await registrar.put(registration, 'api', request.resumeParked);
    return { registration, warnings };
  }

  getRegistration(appserviceId: string): Registration {
    return this.#options.registrar.get(appserviceId);
  }

  listRegistrations(pageSize: number, pageToken: string): Page<Registration> {
    const all = this.#options.registrar.list().flatMap(({ registration }) => registration ?? []);
    return pageOf(all, pageSize, pageToken, ({ id }) => id);
  }

  deleteRegistration(appserviceId: string, backlog: 'discard' | 'park'): Promise<void> {
    return this.#options.registrar.remove(appserviceId, backlog);
  }

  getAppservice(appserviceId: string): Promise<AppserviceStatus> {
    return this.#options.delivery.status(appserviceId);
  }

  async listAppservices(pageSize: number, pageToken: string): Promise<Page<AppserviceStatus>> {
    const items = await this.#options.delivery.statuses(pageToken, pageSize + 1);
    return pageOf(items, pageSize, '', ({ appserviceId }) => appserviceId);
  }

  setPaused(appserviceId: string, paused: boolean): Promise<AppserviceStatus> {
    return this.#options.delivery.setPaused(appserviceId, paused);
  }

  retryNow(appserviceId: string): Promise<AppserviceStatus> {
    return this.#options.delivery.retryNow(appserviceId);
  }

  explainRouting(request: ExplainRoutingRequest): Promise<RoutingExplanation> {
    return explainedRouting(request, this.#options.explained);
  }

  watch(appserviceIds: readonly string[], signal: AbortSignal): ReturnType<AdminPort['watch']> {
    return this.#options.feed.watch(this.#options.serverName, appserviceIds, signal);
  }
}

function invalidRegistration(source: 'yaml' | 'registration', problems: readonly FieldProblem[]): RefusalError {
  const [first] = problems;
  const sentences = problems.map(({ line, field, message }) => (line === undefined ? `${field}: ${message}` : `line ${line}, ${field}: ${message}`));
  const field = source === 'yaml' ? 'yaml' : `registration.${first?.field ?? ''}`;
  return new RefusalError('INVALID_FIELD', `The registration cannot be used, nothing was changed. ${sentences.join(' ')}`, { field });
}

/** The page of ascending `items` after the id that `pageToken` is. */
function pageOf<Item>(items: readonly Item[], pageSize: number, pageToken: string, idOf: (item: Item) => string): Page<Item> {
  const after = pageToken === '' ? items : items.filter((item) => idOf(item) > pageToken);
  const page = after.slice(0, pageSize);
  const last = page.at(-1);
  return { items: page, nextPageToken: after.length > page.length && last !== undefined ? idOf(last) : '' };
}
