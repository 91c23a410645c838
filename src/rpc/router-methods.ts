/** What each method of AppserviceRouter does, for both doors. */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type {
  AuthenticateAppserviceRequestSchema,
  AuthenticateAppserviceResponseSchema,
  AuthorizeIdentifierRequestSchema,
  AuthorizeIdentifierResponseSchema,
  CheckNamespaceRequestSchema,
  CheckNamespaceResponseSchema,
  ClaimKeysRequestSchema,
  ClaimKeysResponseSchema,
  GetDeliveredPositionsRequestSchema,
  GetDeliveredPositionsResponseSchema,
  GetStreamPositionRequestSchema,
  GetStreamPositionResponseSchema,
  ListThirdPartyProtocolsRequestSchema,
  ListThirdPartyProtocolsResponseSchema,
  PingAppserviceRequestSchema,
  PingAppserviceResponseSchema,
  QueryKeysRequestSchema,
  QueryKeysResponseSchema,
  QueryRoomAliasRequestSchema,
  QueryRoomAliasResponseSchema,
  QueryThirdPartyLocationsRequestSchema,
  QueryThirdPartyLocationsResponseSchema,
  QueryThirdPartyUsersRequestSchema,
  QueryThirdPartyUsersResponseSchema,
  QueryUserRequestSchema,
  QueryUserResponseSchema,
  SubmitEventsRequestSchema,
  SubmitEventsResponseSchema,
} from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { CallOrder } from '../appservice/call-order.ts';
import type { CallPlace } from '../appservice/call-order.ts';
import type { Caller } from './authentication.ts';
import { authenticateFrom, authorizeFrom, identityTo, pingFrom, pingOutcomeTo, provisionTo, queriedFrom, streamName, subjectFrom } from './conversion.ts';
import { keysTo, locationQuestionFrom, locationsTo, protocolsTo, userQuestionFrom, usersTo } from './lookup-conversion.ts';
import { submissionBytes, submissionFrom, submissionResultTo } from './submission-conversion.ts';
import { pipelined, untilAborted } from './pipeline.ts';
import type { HomeserverPort, Homeservers, SubmissionResult } from './ports.ts';
import { Code, RpcStatus } from './status.ts';

/** Messages of one stream that are worked on at a time. */
const STREAM_IN_FLIGHT_MAX = 32;
/** Their JSON bytes together; a single message may be larger. */
const STREAM_BYTES_MAX = 8 * 1024 * 1024;

export class RouterMethods {
  readonly #homeservers: Homeservers;

  constructor(homeservers: Homeservers) {
    this.#homeservers = homeservers;
  }

  async submitEvents(request: MessageShape<typeof SubmitEventsRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof SubmitEventsResponseSchema>> {
    const homeserver = this.#homeserver(request.serverName, caller);
    return submissionResultTo(await homeserver.submit(submissionFrom(request)));
  }

  /** Once `draining` aborts, what was read is answered, and the call ends as one that came too late. */
  async *streamEvents(
    requests: AsyncIterable<MessageShape<typeof SubmitEventsRequestSchema>>,
    caller: Caller,
    draining: AbortSignal,
  ): AsyncGenerator<MessageInitShape<typeof SubmitEventsResponseSchema>> {
    const limits = { inFlightMax: STREAM_IN_FLIGHT_MAX, bytesMax: STREAM_BYTES_MAX, bytesOf: submissionBytes };
    const order = new CallOrder();
    yield* untilDrained(pipelined(untilAborted(requests, draining), (request) => this.#submitAt(order.nextPlace(), request, caller), limits), draining);
  }

  async getStreamPosition(request: MessageShape<typeof GetStreamPositionRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof GetStreamPositionResponseSchema>> {
    const { streamPosition, logPosition } = await this.#homeserver(request.serverName, caller).streamPosition(streamName(request.stream));
    return { streamPosition: BigInt(streamPosition), logPosition: BigInt(logPosition) };
  }

  async getDeliveredPositions(request: MessageShape<typeof GetDeliveredPositionsRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof GetDeliveredPositionsResponseSchema>> {
    const positions = await this.#homeserver(request.serverName, caller).deliveredPositions(streamName(request.stream));
    return { positions: positions.map(({ appserviceId, streamPosition }) => ({ appserviceId, streamPosition: BigInt(streamPosition) })) };
  }

  async checkNamespace(request: MessageShape<typeof CheckNamespaceRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof CheckNamespaceResponseSchema>> {
    const verdict = this.#homeserver(request.serverName, caller).checkNamespace(subjectFrom(request.subject));
    const { exclusive, exclusiveAppserviceIds, senderUser } = verdict;
    return { matches: verdict.matches.map((match) => ({ ...match })), exclusive, exclusiveAppserviceIds: [...exclusiveAppserviceIds], senderUser };
  }

  async authorizeIdentifier(request: MessageShape<typeof AuthorizeIdentifierRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof AuthorizeIdentifierResponseSchema>> {
    const appserviceId = this.#homeserver(request.serverName, caller).authorize(authorizeFrom(request));
    return appserviceId === undefined ? {} : { appserviceId };
  }

  async authenticateAppservice(
    request: MessageShape<typeof AuthenticateAppserviceRequestSchema>,
    caller: Caller,
  ): Promise<MessageInitShape<typeof AuthenticateAppserviceResponseSchema>> {
    return identityTo(this.#homeserver(request.serverName, caller).authenticate(authenticateFrom(request)));
  }

  async pingAppservice(request: MessageShape<typeof PingAppserviceRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof PingAppserviceResponseSchema>> {
    return pingOutcomeTo(await this.#homeserver(request.serverName, caller).ping(pingFrom(request)));
  }

  async queryUser({ serverName, userId }: MessageShape<typeof QueryUserRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof QueryUserResponseSchema>> {
    return provisionTo(await this.#homeserver(serverName, caller).query(queriedFrom('users', userId)));
  }

  async queryRoomAlias({ serverName, roomAlias }: MessageShape<typeof QueryRoomAliasRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof QueryRoomAliasResponseSchema>> {
    return provisionTo(await this.#homeserver(serverName, caller).query(queriedFrom('aliases', roomAlias)));
  }

  async listThirdPartyProtocols(
    { serverName, protocol }: MessageShape<typeof ListThirdPartyProtocolsRequestSchema>,
    caller: Caller,
  ): Promise<MessageInitShape<typeof ListThirdPartyProtocolsResponseSchema>> {
    return protocolsTo(await this.#homeserver(serverName, caller).thirdPartyProtocols(protocol));
  }

  async queryThirdPartyUsers(request: MessageShape<typeof QueryThirdPartyUsersRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof QueryThirdPartyUsersResponseSchema>> {
    return usersTo(await this.#homeserver(request.serverName, caller).thirdPartyMatches('users', userQuestionFrom(request)));
  }

  async queryThirdPartyLocations(
    request: MessageShape<typeof QueryThirdPartyLocationsRequestSchema>,
    caller: Caller,
  ): Promise<MessageInitShape<typeof QueryThirdPartyLocationsResponseSchema>> {
    return locationsTo(await this.#homeserver(request.serverName, caller).thirdPartyMatches('locations', locationQuestionFrom(request)));
  }

  async claimKeys({ serverName, json, homeserverJson }: MessageShape<typeof ClaimKeysRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof ClaimKeysResponseSchema>> {
    return keysTo(await this.#homeserver(serverName, caller).claimKeys(json, homeserverJson));
  }

  async queryKeys({ serverName, json, homeserverJson }: MessageShape<typeof QueryKeysRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof QueryKeysResponseSchema>> {
    return keysTo(await this.#homeserver(serverName, caller).queryKeys(json, homeserverJson));
  }

  /** A refusal at the door is told before anything is waited for, so before the next message is looked at. */
  async #submitAt(place: CallPlace, request: MessageShape<typeof SubmitEventsRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof SubmitEventsResponseSchema>> {
    let submitted: Promise<SubmissionResult>;
    try {
      submitted = this.#homeserver(request.serverName, caller).submit({ ...submissionFrom(request), place });
    } catch (error) {
      place.refuse(error);
      throw error;
    }
    return submissionResultTo(await submitted);
  }

  #homeserver(serverName: string | undefined, caller: Caller): HomeserverPort {
    // A homeserver is always bound: one whose credential names none is the configured one.
    const bound = caller.serverName ?? this.#homeservers.defaultServerName;
    const wanted = serverName ?? bound;
    return found(this.#homeservers.router(allowed(wanted, { name: caller.name, serverName: bound })), wanted);
  }
}

/** The server name, if the caller's credential is not bound to another. */
export function allowed(serverName: string, caller: Pick<Caller, 'name' | 'serverName'>): string {
  if (caller.serverName === null || caller.serverName === serverName) return serverName;
  const message = `The credential "${caller.name}" is bound to another server_name. Leave server_name out, or use the credential of that homeserver.`;
  throw new RpcStatus({ code: Code.permissionDenied, reason: 'SERVER_NAME_FORBIDDEN', message, field: 'server_name' });
}

/** How a call ends that would go on while the router ends. */
function drainingStatus(): RpcStatus {
  return new RpcStatus({ code: Code.unavailable, reason: 'DRAINING', message: 'The router is shutting down. Call again in a second.', retryDelayMs: 1000 });
}

/** A stream that the drain cut short says so. */
export async function* untilDrained<Answer>(answers: AsyncIterable<Answer>, draining: AbortSignal): AsyncGenerator<Answer> {
  yield* answers;
  if (draining.aborted) throw drainingStatus();
}

export function found<Port>(port: Port | undefined, serverName: string): Port {
  if (port !== undefined) return port;
  const message = `This router serves no homeserver "${serverName.slice(0, 255)}". Its server names come from ROUTER_SERVER_NAME and the credentials.`;
  throw new RpcStatus({ code: Code.notFound, reason: 'SERVER_NAME_UNKNOWN', message, field: 'server_name' });
}
