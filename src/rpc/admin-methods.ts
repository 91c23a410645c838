/** What each method of AppserviceAdmin does, for both doors. */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type {
  DeleteRegistrationRequestSchema,
  ExplainRoutingRequestSchema,
  ExplainRoutingResponseSchema,
  GetAppserviceResponseSchema,
  GetRegistrationResponseSchema,
  ListAppservicesRequestSchema,
  ListAppservicesResponseSchema,
  ListRegistrationsRequestSchema,
  ListRegistrationsResponseSchema,
  PutRegistrationRequestSchema,
  PutRegistrationResponseSchema,
  RotateEncryptionKeyRequestSchema,
  RotateEncryptionKeyResponseSchema,
  WatchEventsRequestSchema,
  WatchEventsResponseSchema,
} from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { DeleteRegistrationRequest_Backlog as Backlog } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Caller } from './authentication.ts';
import { appserviceIdFrom, appserviceTo, domainEventTo, invalid } from './conversion.ts';
import { explanationTo, explanationWantedFrom } from './explanation-conversion.ts';
import { ingressTo } from './ingress-conversion.ts';
import { OperatorMethods, wordsFrom } from './operator-methods.ts';
import { pageSize, pageToken } from './page.ts';
import type { AdminPort, AppserviceStatus, Homeservers, PutRegistrationRequest } from './ports.ts';
import { registrationFrom, registrationTo } from './registration-conversion.ts';
import { allowed, found } from './router-methods.ts';
import { Code, RpcStatus } from './status.ts';

const WATCHED_MAX = 1000;
const YAML_BYTES_MAX = 1024 * 1024;

/** A request that names one appservice. */
interface AppserviceRequest {
  readonly serverName?: string | undefined;
  readonly appserviceId: string;
}

interface AppserviceAnswer {
  readonly appservice: MessageInitShape<typeof GetAppserviceResponseSchema>['appservice'];
}

export class AdminMethods {
  /** Those by which operators step in. */
  readonly operator = new OperatorMethods((request, caller) => this.#admin(request, caller));
  readonly #homeservers: Homeservers;
  readonly #rateLimitedDefault: boolean;

  constructor(homeservers: Homeservers, rateLimitedDefault: boolean) {
    this.#homeservers = homeservers;
    this.#rateLimitedDefault = rateLimitedDefault;
  }

  async putRegistration(request: MessageShape<typeof PutRegistrationRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof PutRegistrationResponseSchema>> {
    const { validateOnly, resumeParked } = request;
    const { registration, warnings } = await this.#admin(request, caller).putRegistration({ source: this.#source(request), validateOnly, resumeParked }, caller.name);
    return { registration: registrationTo(registration), warnings: warnings.map(({ code, message }) => ({ code, message })) };
  }

  async getRegistration(request: AppserviceRequest, caller: Caller): Promise<MessageInitShape<typeof GetRegistrationResponseSchema>> {
    return { registration: registrationTo(this.#admin(request, caller).getRegistration(idOf(request))) };
  }

  async listRegistrations(request: MessageShape<typeof ListRegistrationsRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof ListRegistrationsResponseSchema>> {
    const page = this.#admin(request, caller).listRegistrations(pageSize(request.pageSize), pageToken(request.pageToken));
    return { registrations: page.items.map(registrationTo), nextPageToken: page.nextPageToken };
  }

  async deleteRegistration(request: MessageShape<typeof DeleteRegistrationRequestSchema>, caller: Caller): Promise<Record<string, never>> {
    if (request.backlog !== Backlog.DISCARD && request.backlog !== Backlog.PARK) {
      throw invalid('backlog', 'Say what becomes of what is queued: BACKLOG_DISCARD gives it up, BACKLOG_PARK keeps it undelivered.');
    }
    await this.#admin(request, caller).deleteRegistration(idOf(request), request.backlog === Backlog.PARK ? 'park' : 'discard', caller.name);
    return {};
  }

  getAppservice(request: AppserviceRequest, caller: Caller): Promise<AppserviceAnswer> {
    return answered(this.#admin(request, caller).getAppservice(idOf(request)));
  }

  async listAppservices(request: MessageShape<typeof ListAppservicesRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof ListAppservicesResponseSchema>> {
    const page = await this.#admin(request, caller).listAppservices(pageSize(request.pageSize), pageToken(request.pageToken));
    const ingress = this.#homeservers.ingress(this.#wantedOf(request, caller));
    return { appservices: page.items.map(appserviceTo), nextPageToken: page.nextPageToken, ...(ingress === undefined ? {} : { ingress: ingressTo(ingress) }) };
  }

  setPaused(request: AppserviceRequest, caller: Caller, paused: boolean): Promise<AppserviceAnswer> {
    return answered(this.#admin(request, caller).setPaused(idOf(request), paused, caller.name));
  }

  retryNow(request: AppserviceRequest, caller: Caller): Promise<AppserviceAnswer> {
    return answered(this.#admin(request, caller).retryNow(idOf(request), caller.name));
  }

  /** The keys are the process's, so who is bound to one homeserver may not. */
  async rotateEncryptionKey(request: MessageShape<typeof RotateEncryptionKeyRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof RotateEncryptionKeyResponseSchema>> {
    const { replacedKeyId, sharedKeyFile, reason } = request;
    if (caller.serverName !== null) {
      const message = `The credential "${caller.name}" is bound to one homeserver, and the encryption key is that of all. Use one that is bound to none.`;
      throw new RpcStatus({ code: Code.permissionDenied, reason: 'SERVER_NAME_FORBIDDEN', message });
    }
    if (replacedKeyId !== undefined && !/^[0-9a-f]{8}$/.test(replacedKeyId)) throw invalid('replaced_key_id', 'A key id is 8 hex digits, as an answer of RotateEncryptionKey has it.');
    const order = { replacedKeyId, sharedKeyFile, reason: wordsFrom(reason), actor: caller.name };
    const { sealingKeyId, keyCreated, resealedCount, keys } = await this.#admin({}, caller).rotateEncryptionKey(order);
    return { sealingKeyId, keyCreated, resealedCount, keys: keys.map(({ keyId, registrationCount }) => ({ keyId, registrationCount })) };
  }

  async explainRouting(request: MessageShape<typeof ExplainRoutingRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof ExplainRoutingResponseSchema>> {
    return explanationTo(await this.#admin(request, caller).explainRouting(explanationWantedFrom(request)));
  }

  /** Until `signal` aborts. Calls `begun` once nothing is missed any more. */
  async *watchEvents(request: MessageShape<typeof WatchEventsRequestSchema>, caller: Caller, signal: AbortSignal, begun: () => void): AsyncGenerator<MessageInitShape<typeof WatchEventsResponseSchema>> {
    if (request.appserviceIds.length > WATCHED_MAX) throw invalid('appservice_ids', `At most ${WATCHED_MAX} appservices can be named; name none to watch all.`);
    const events = this.#admin(request, caller).watch(request.appserviceIds, signal);
    begun();
    for await (const { record, droppedCount } of events) yield domainEventTo(record, droppedCount);
  }

  #admin({ serverName }: { readonly serverName?: string | undefined }, caller: Caller): AdminPort {
    const wanted = this.#wantedOf({ serverName }, caller);
    return found(this.#homeservers.admin(allowed(wanted, caller)), wanted);
  }

  #wantedOf({ serverName }: { readonly serverName?: string | undefined }, caller: Caller): string {
    return serverName ?? caller.serverName ?? this.#homeservers.defaultServerName;
  }

  #source({ source }: MessageShape<typeof PutRegistrationRequestSchema>): PutRegistrationRequest['source'] {
    switch (source.case) {
      case 'yaml':
        if (Buffer.byteLength(source.value) > YAML_BYTES_MAX) throw invalid('yaml', `A registration file has at most ${YAML_BYTES_MAX} bytes.`);
        return { kind: 'yaml', text: source.value };
      case 'registration':
        return { kind: 'registration', registration: registrationFrom(source.value, this.#rateLimitedDefault) };
      case undefined:
        throw invalid('source', 'Send the registration, as yaml or as a registration message.');
    }
  }
}

async function answered(status: Promise<AppserviceStatus>): Promise<AppserviceAnswer> {
  return { appservice: appserviceTo(await status) };
}

function idOf({ appserviceId }: AppserviceRequest): string {
  return appserviceIdFrom(appserviceId);
}
