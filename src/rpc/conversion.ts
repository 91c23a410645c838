/**
 * From wire messages to domain values and back, with the bounds of the contract. Every refusal names the field.
 */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { AppserviceSchema } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { Appservice_HeldBy, DeliveryState as WireState } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import type { WatchEventsResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type {
  AuthenticateAppserviceRequestSchema,
  AuthenticateAppserviceResponseSchema,
  AuthorizeIdentifierRequestSchema,
  CheckNamespaceRequestSchema,
  PingAppserviceRequestSchema,
  PingAppserviceResponseSchema,
  QueryRoomAliasResponseSchema,
  QueryUserResponseSchema,
} from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { AuthorizeIdentifierRequest_Action as Action } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { AppserviceIdentity, AuthenticateRequest } from '../appservice/authenticate.ts';
import type { AuthorizeRequest } from '../appservice/authorize.ts';
import type { DeliveryState } from '../appservice/delivery-state.ts';
import type { DomainEventRecord } from '../appservice/domain-event.ts';
import type { Subject } from '../appservice/identifier.ts';
import type { PingOutcome } from '../appservice/ping.ts';
import type { Provision, ProvisionSubject } from '../appservice/provisioning.ts';
import type { AppserviceStatus, PingRequest } from './ports.ts';
import { Code, RpcStatus } from './status.ts';

export const REQUEST_BYTES_MAX = 8 * 1024 * 1024;
const STREAM_BYTES_MAX = 255;
const ID_BYTES_MAX = 1024;
const TOKEN_BYTES_MAX = 4096;
const SOURCE_IP_BYTES_MAX = 64;
const TRANSACTION_ID_BYTES_MAX = 4096;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

export function invalid(field: string, message: string): RpcStatus {
  return new RpcStatus({ code: Code.invalidArgument, reason: 'INVALID_FIELD', message, field });
}

export function position(value: bigint, field: string): number {
  if (value < 0n || value > MAX_SAFE) throw invalid(field, 'A stream position is an integer from 0 through 9007199254740991.');
  return Number(value);
}

export function streamName(name: string | undefined): string {
  if (name === undefined) return '';
  if (Buffer.byteLength(name) > STREAM_BYTES_MAX) throw invalid('stream', `The name of a stream has at most ${STREAM_BYTES_MAX} bytes.`);
  return name;
}

/** The text, if it has at most so many bytes. */
export function short(text: string, bytesMax: number, field: string): string {
  if (text.length > bytesMax || Buffer.byteLength(text) > bytesMax) throw invalid(field, `This field has at most ${bytesMax} bytes.`);
  return text;
}

function shortIfSet(text: string | undefined, bytesMax: number, field: string): string | undefined {
  return text === undefined ? undefined : short(text, bytesMax, field);
}

/** The id of an appservice that a request names. */
export function appserviceIdFrom(appserviceId: string): string {
  if (appserviceId === '') throw invalid('appservice_id', `Name the appservice, in at most ${ID_BYTES_MAX} bytes.`);
  return short(appserviceId, ID_BYTES_MAX, 'appservice_id');
}

type WireSubject = MessageShape<typeof CheckNamespaceRequestSchema>['subject'];

export function subjectFrom(subject: WireSubject): Subject {
  switch (subject.case) {
    case 'userId':
      return { kind: 'users', identifier: subject.value };
    case 'roomAlias':
      return { kind: 'aliases', identifier: subject.value };
    case 'roomId':
      return { kind: 'rooms', identifier: subject.value };
    case undefined:
      throw invalid('subject', 'Name what is asked about: user_id, room_alias or room_id.');
  }
}

const ACTIONS: ReadonlyMap<Action, AuthorizeRequest['action']> = new Map([
  [Action.CREATE, 'create'],
  [Action.DELETE, 'delete'],
  [Action.LOGIN, 'login'],
]);

export function authorizeFrom(request: MessageShape<typeof AuthorizeIdentifierRequestSchema>): AuthorizeRequest {
  const { actor, action, userRegistered } = request;
  const wanted = ACTIONS.get(action);
  if (wanted === undefined) throw invalid('action', 'Say what the actor wants to do: ACTION_CREATE, ACTION_DELETE or ACTION_LOGIN.');
  const subject = subjectFrom(request.subject);
  switch (actor.case) {
    case 'asToken':
      return { subject, action: wanted, actor: { kind: 'as_token', asToken: short(actor.value, TOKEN_BYTES_MAX, 'as_token') }, userRegistered };
    case 'appserviceId':
      return { subject, action: wanted, actor: { kind: 'appservice_id', appserviceId: appserviceIdFrom(actor.value) }, userRegistered };
    case 'personUserId':
      return { subject, action: wanted, actor: { kind: 'person', userId: short(actor.value, ID_BYTES_MAX, 'person_user_id') }, userRegistered };
    case undefined:
      throw invalid('actor', 'Say who wants to do it: as_token, appservice_id or person_user_id.');
  }
}

export function authenticateFrom(request: MessageShape<typeof AuthenticateAppserviceRequestSchema>): AuthenticateRequest {
  const { asToken, userId, deviceId, sourceIp, userRegistered } = request;
  shortIfSet(sourceIp, SOURCE_IP_BYTES_MAX, 'source_ip');
  return {
    asToken: short(asToken, TOKEN_BYTES_MAX, 'as_token'),
    userId: shortIfSet(userId, ID_BYTES_MAX, 'user_id'),
    deviceId: shortIfSet(deviceId, ID_BYTES_MAX, 'device_id'),
    userRegistered,
  };
}

export function identityTo({ appserviceId, userId, deviceId, isRateLimited, isSenderUser }: AppserviceIdentity): MessageInitShape<typeof AuthenticateAppserviceResponseSchema> {
  return { appserviceId, userId, ...(deviceId === undefined ? {} : { deviceId }), rateLimited: isRateLimited, isSenderUser };
}

export function pingFrom({ appservice, transactionId: id }: MessageShape<typeof PingAppserviceRequestSchema>): PingRequest {
  const transactionId = shortIfSet(id, TRANSACTION_ID_BYTES_MAX, 'transaction_id');
  switch (appservice.case) {
    case 'asToken':
      return { appservice: { kind: 'as_token', asToken: short(appservice.value, TOKEN_BYTES_MAX, 'as_token') }, transactionId };
    case 'appserviceId':
      return { appservice: { kind: 'appservice_id', appserviceId: appserviceIdFrom(appservice.value) }, transactionId };
    case undefined:
      throw invalid('appservice', 'Say which appservice to ping: as_token or appservice_id.');
  }
}

export function pingOutcomeTo(outcome: PingOutcome): MessageInitShape<typeof PingAppserviceResponseSchema> {
  if (outcome.kind === 'answered') return { result: { case: 'durationMs', value: outcome.durationMs } };
  const { errcode, httpStatus, answer } = outcome.failure;
  return { result: { case: 'failure', value: { errcode, httpStatus, ...answer } } };
}

/** The identifier of a query; required. */
export function queriedFrom(kind: ProvisionSubject['kind'], identifier: string): ProvisionSubject {
  return { kind, identifier: short(identifier, ID_BYTES_MAX, kind === 'users' ? 'user_id' : 'room_alias') };
}

export function provisionTo({ exists, appserviceId }: Provision): MessageInitShape<typeof QueryUserResponseSchema> & MessageInitShape<typeof QueryRoomAliasResponseSchema> {
  return { exists, ...(appserviceId === undefined ? {} : { appserviceId }) };
}

const STATES: Readonly<Record<DeliveryState, WireState>> = {
  idle: WireState.IDLE,
  delivering: WireState.DELIVERING,
  retrying: WireState.RETRYING,
  failed: WireState.FAILED,
};

const HELD_BY = { no_url: Appservice_HeldBy.NO_URL, paused: Appservice_HeldBy.PAUSED, parked: Appservice_HeldBy.PARKED, user_query: Appservice_HeldBy.USER_QUERY } as const;

export function heldByTo(heldBy: keyof typeof HELD_BY | null): Appservice_HeldBy {
  return heldBy === null ? Appservice_HeldBy.UNSPECIFIED : HELD_BY[heldBy];
}

export function timestamp(timeMs: number): Timestamp {
  return timestampFromMs(Math.floor(timeMs));
}

export function appserviceTo(status: AppserviceStatus): MessageInitShape<typeof AppserviceSchema> {
  const { transaction, lastError, oldestEntryTimeMs, heldBy } = status;
  return {
    appserviceId: status.appserviceId,
    state: STATES[status.state],
    paused: status.paused,
    deliveredLogPosition: BigInt(status.deliveredLogPosition),
    backlogEntries: BigInt(status.backlogEntries),
    backlogBytes: BigInt(status.backlogBytes),
    ...(oldestEntryTimeMs === null ? {} : { oldestEntryTime: timestamp(oldestEntryTimeMs) }),
    ...(transaction === null
      ? {}
      : {
          transaction: {
            txnId: transaction.txnId,
            eventCount: transaction.eventCount,
            attemptCount: transaction.attemptCount,
            ...(transaction.nextAttemptTimeMs === 0 ? {} : { nextAttemptTime: timestamp(transaction.nextAttemptTimeMs) }),
          },
        }),
    ...(lastError === null
      ? {}
      : {
          lastError: {
            kind: lastError.kind,
            message: lastError.message,
            time: timestamp(lastError.timeMs),
            ...(lastError.httpStatus === null ? {} : { httpStatus: lastError.httpStatus }),
          },
        }),
    deliveredEntries: BigInt(status.deliveredEntries),
    attempts: BigInt(status.attempts),
    failedAttempts: BigInt(status.failedAttempts),
    heldBy: heldByTo(heldBy),
    quarantinedEntries: BigInt(status.quarantinedEntries),
    leaseHolder: status.leaseHolder ?? '',
  };
}

export function domainEventTo({ timeMs, event }: DomainEventRecord, droppedCount: number): MessageInitShape<typeof WatchEventsResponseSchema> {
  const common = { time: timestamp(timeMs), droppedCount: BigInt(droppedCount) };
  switch (event.kind) {
    case 'events_delivered':
      return { ...common, event: { case: 'eventsDelivered', value: { serviceId: event.service_id, transactionId: event.transaction_id, eventCount: event.event_count } } };
    case 'delivery_failed':
      return { ...common, event: { case: 'deliveryFailed', value: { serviceId: event.service_id, transactionId: event.transaction_id, retryCount: event.retry_count } } };
    case 'state_changed':
      return { ...common, event: { case: 'stateChanged', value: { serviceId: event.service_id, state: STATES[event.state], paused: event.paused } } };
    case 'user_provisioned':
      return { ...common, event: { case: 'userProvisioned', value: { serviceId: event.service_id, userId: event.user_id } } };
    case 'alias_provisioned':
      return { ...common, event: { case: 'aliasProvisioned', value: { serviceId: event.service_id, alias: event.alias } } };
    case 'escalation':
      return { ...common, event: { case: 'escalation', value: { serviceId: event.service_id, errorRate: event.error_rate } } };
  }
}
