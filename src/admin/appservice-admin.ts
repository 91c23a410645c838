/**
 * The operator's half for one homeserver: what the admin service calls (contract section 2).
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { Registration } from '../appservice/registration.ts';
import type { Delivery } from '../delivery/delivery.ts';
import type { EventFeed } from '../event-feed.ts';
import type { AdminPort, AppserviceStatus, AuditRecord, ExplainRoutingRequest, KeyRotationOrder, KeyRotationResult, Order, Page, PutRegistrationRequest, RegistrationWarning, ReplayOrder, RoutingExplanation, ShelvedTransaction, TransactionOrder } from '../rpc/ports.ts';
import { overlapWarnings } from '../registration/namespace-overlaps.ts';
import { readRegistration, registrationFromYaml } from '../registration/registration-yaml.ts';
import type { RegistrationRules } from '../registration/registration-rules.ts';
import type { FieldProblem } from '../registration/yaml-fields.ts';
import type { Audit, AuditedAction } from './audit.ts';
import type { KeyRotation } from './key-rotation.ts';
import type { Quarantine } from './quarantine.ts';
import type { Registrar } from './registrar.ts';
import { explainedRouting } from './routing-explainer.ts';
import type { ExplainedHomeserver } from './routing-explainer.ts';

export interface AppserviceAdminOptions {
  readonly serverName: string;
  readonly registrar: Registrar;
  readonly delivery: Delivery;
  readonly quarantine: Quarantine;
  readonly audit: Audit;
  readonly feed: EventFeed;
  readonly explained: ExplainedHomeserver;
  readonly rotation: KeyRotation;
  /** Lets others run during long computations. */
  readonly pause: () => Promise<void>;
  readonly rules: RegistrationRules;
}

/** Stands for the registration files among those who do things; no name of a credential. */
const FILES_ACTOR = 'registration files';

export class AppserviceAdmin implements AdminPort {
  readonly #options: AppserviceAdminOptions;

  constructor(options: AppserviceAdminOptions) {
    this.#options = options;
  }

  async putRegistration(request: PutRegistrationRequest, actor: string): Promise<{ registration: Registration; warnings: readonly RegistrationWarning[] }> {
    const { registrar, rules } = this.#options;
    const { source } = request;
    const others = registrar.list().flatMap(({ registration }) => registration ?? []);
    const reading = source.kind === 'yaml' ? registrationFromYaml(source.text, rules, others) : readRegistration(source.registration, rules, others);
    if (reading.kind === 'invalid') throw invalidRegistration(request.source.kind, reading.problems);
    const { registration } = reading;
    const warnings = [...reading.warnings, ...(await overlapWarnings(registration, this.#options.explained.index, this.#options.pause))];
    if (request.validateOnly) registrar.check(registration, request.resumeParked);
    else await this.#audited('PutRegistration', { appserviceId: registration.id, actor }, () => registrar.put(registration, 'api', request.resumeParked));
    return { registration, warnings };
  }

  /** What a registration file asks for. Rejects with a RefusalError or a StoreError. */
  async putFromFile(registration: Registration, resumeParked: boolean): Promise<void> {
    const { registrar } = this.#options;
    // Before it is entered: a file that cannot be applied is tried again and again.
    registrar.check(registration, resumeParked);
    await this.#audited('PutRegistration', { appserviceId: registration.id, actor: FILES_ACTOR, reason: 'A registration file.' }, () => registrar.put(registration, 'files', resumeParked));
  }

  /** The registration is in no file any more: its backlog is parked. Rejects with a RefusalError or a StoreError. */
  async removeWithoutFile(appserviceId: string): Promise<void> {
    const { registrar } = this.#options;
    registrar.get(appserviceId);
    await this.#audited('DeleteRegistration', { appserviceId, actor: FILES_ACTOR, reason: 'In no registration file any more; its backlog is parked.' }, () => registrar.remove(appserviceId, 'park'));
  }

  getRegistration(appserviceId: string): Registration {
    return this.#options.registrar.get(appserviceId);
  }

  listRegistrations(pageSize: number, pageToken: string): Page<Registration> {
    const all = this.#options.registrar.list().flatMap(({ registration }) => registration ?? []);
    return pageOf(all, pageSize, pageToken, ({ id }) => id);
  }

  /** With its backlog goes what it has in quarantine. */
  deleteRegistration(appserviceId: string, backlog: 'discard' | 'park', actor: string): Promise<void> {
    const { registrar, delivery, quarantine } = this.#options;
    return this.#audited('DeleteRegistration', { appserviceId, actor }, async () => {
      if (backlog === 'park' && (await delivery.status(appserviceId)).state === 'failed') {
        const message = `"${appserviceId}" was stopped, so it has no backlog to park. Delete it with BACKLOG_DISCARD; put it again to start anew.`;
        throw new RefusalError('DELIVERY_STATE_FORBIDS', message, { metadata: { appservice_id: appserviceId } });
      }
      await registrar.remove(appserviceId, backlog);
      if (backlog === 'discard') await quarantine.clear(appserviceId);
    });
  }

  getAppservice(appserviceId: string): Promise<AppserviceStatus> {
    return this.#options.delivery.status(appserviceId);
  }

  async listAppservices(pageSize: number, pageToken: string): Promise<Page<AppserviceStatus>> {
    const items = await this.#options.delivery.statuses(pageToken, pageSize + 1);
    return pageOf(items, pageSize, '', ({ appserviceId }) => appserviceId);
  }

  setPaused(appserviceId: string, paused: boolean, actor: string): Promise<AppserviceStatus> {
    const { delivery } = this.#options;
    return this.#audited(paused ? 'PauseDelivery' : 'ResumeDelivery', { appserviceId, actor }, () => delivery.setPaused(appserviceId, paused));
  }

  retryNow(appserviceId: string, actor: string): Promise<AppserviceStatus> {
    const { delivery } = this.#options;
    return this.#audited('RetryNow', { appserviceId, actor }, () => delivery.retryNow(appserviceId));
  }

  stop(order: Order): Promise<AppserviceStatus> {
    const { commands } = this.#options.delivery;
    return this.#ordered('StopAppservice', order, () => commands.stop(order.appserviceId));
  }

  skip(order: TransactionOrder): Promise<AppserviceStatus> {
    const { delivery, quarantine } = this.#options;
    const { appserviceId, txnId, reason } = order;
    return this.#ordered('SkipTransaction', order, () => delivery.commands.skip(appserviceId, txnId, reason, () => quarantine.has(appserviceId, txnId)));
  }

  redeliver(order: TransactionOrder): Promise<AppserviceStatus> {
    return this.#ordered('RedeliverTransaction', order, () => this.#options.quarantine.redeliver(order.appserviceId, order.txnId));
  }

  discard(order: TransactionOrder): Promise<AppserviceStatus> {
    return this.#ordered('DiscardTransaction', order, () => this.#options.quarantine.discard(order.appserviceId, order.txnId));
  }

  replay(order: ReplayOrder): Promise<{ status: AppserviceStatus; from: number }> {
    const { delivery } = this.#options;
    return this.#audited('ReplayEvents', order, async () => {
      const from = await delivery.commands.replay(order.appserviceId, order.start);
      return { status: await delivery.status(order.appserviceId), from };
    });
  }

  listQuarantined(appserviceId: string, pageSize: number, pageToken: string, withBodies: boolean): Promise<Page<ShelvedTransaction>> {
    return this.#options.quarantine.list(appserviceId, pageSize, pageToken, withBodies);
  }

  listAudit(appserviceId: string | undefined, pageSize: number, pageToken: string): Promise<Page<AuditRecord>> {
    return this.#options.audit.list(appserviceId, pageSize, pageToken);
  }

  rotateEncryptionKey({ actor, reason, ...request }: KeyRotationOrder): Promise<KeyRotationResult> {
    return this.#audited('RotateEncryptionKey', { appserviceId: '', actor, reason }, () => this.#options.rotation.rotate(request));
  }

  explainRouting(request: ExplainRoutingRequest): Promise<RoutingExplanation> {
    return explainedRouting(request, this.#options.explained);
  }

  watch(appserviceIds: readonly string[], signal: AbortSignal): ReturnType<AdminPort['watch']> {
    return this.#options.feed.watch(this.#options.serverName, appserviceIds, signal);
  }

  #audited<Result>(action: string, order: Omit<AuditedAction, 'action'>, act: () => Promise<Result>): Promise<Result> {
    return this.#options.audit.around({ ...order, action }, act);
  }

  #ordered(action: string, order: Omit<AuditedAction, 'action'>, act: () => Promise<void>): Promise<AppserviceStatus> {
    return this.#audited(action, order, async () => {
      await act();
      return this.#options.delivery.status(order.appserviceId);
    });
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
