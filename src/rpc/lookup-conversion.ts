/** From wire messages of third-party look-ups and key requests to domain values and back. The house judges what they hold. */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type {
  ClaimKeysResponseSchema,
  ListThirdPartyProtocolsResponseSchema,
  QueryKeysResponseSchema,
  QueryThirdPartyLocationsRequestSchema,
  QueryThirdPartyLocationsResponseSchema,
  QueryThirdPartyUsersRequestSchema,
  QueryThirdPartyUsersResponseSchema,
} from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { KeysResult } from '../appservice/key-request.ts';
import type { ThirdPartyMatches, ThirdPartyProtocols, ThirdPartyQuestion } from '../appservice/third-party.ts';
import { invalid } from './conversion.ts';

type UsersRequest = Pick<MessageShape<typeof QueryThirdPartyUsersRequestSchema>, 'query' | 'fields'>;
type LocationsRequest = Pick<MessageShape<typeof QueryThirdPartyLocationsRequestSchema>, 'query' | 'fields'>;

export function userQuestionFrom({ query, fields }: UsersRequest): ThirdPartyQuestion {
  switch (query.case) {
    case 'protocol':
      return byFields(query.value, fields);
    case 'userId':
      return inReverse(query.value, fields);
    case undefined:
      throw invalid('query', 'Say how to look: by protocol and fields, or by user_id.');
  }
}

export function locationQuestionFrom({ query, fields }: LocationsRequest): ThirdPartyQuestion {
  switch (query.case) {
    case 'protocol':
      return byFields(query.value, fields);
    case 'roomAlias':
      return inReverse(query.value, fields);
    case undefined:
      throw invalid('query', 'Say how to look: by protocol and fields, or by room_alias.');
  }
}

function byFields(protocol: string, fields: UsersRequest['fields']): ThirdPartyQuestion {
  return { by: 'fields', protocol, fields: fields.map(({ name, value }) => ({ name, value })) };
}

function inReverse(identifier: string, fields: UsersRequest['fields']): ThirdPartyQuestion {
  if (fields.length > 0) throw invalid('fields', 'Fields belong to a look-up by protocol. Leave them out, or name the protocol.');
  return { by: 'identifier', identifier };
}

export function protocolsTo({ protocols, failedAppserviceIds }: ThirdPartyProtocols): MessageInitShape<typeof ListThirdPartyProtocolsResponseSchema> {
  return {
    protocols: protocols.map(({ protocol, instances, json }) => ({ protocol, instances: instances.map((instance) => ({ ...instance })), json: Buffer.from(json) })),
    failedAppserviceIds: [...failedAppserviceIds],
  };
}

export function usersTo({ matches, failedAppserviceIds }: ThirdPartyMatches): MessageInitShape<typeof QueryThirdPartyUsersResponseSchema> {
  const users = matches.map(({ identifier, protocol, appserviceId, json }) => ({ userId: identifier, protocol, appserviceId, json: Buffer.from(json) }));
  return { users, failedAppserviceIds: [...failedAppserviceIds] };
}

export function locationsTo({ matches, failedAppserviceIds }: ThirdPartyMatches): MessageInitShape<typeof QueryThirdPartyLocationsResponseSchema> {
  const locations = matches.map(({ identifier, protocol, appserviceId, json }) => ({ roomAlias: identifier, protocol, appserviceId, json: Buffer.from(json) }));
  return { locations, failedAppserviceIds: [...failedAppserviceIds] };
}

export function keysTo({ json, failedAppserviceIds }: KeysResult): MessageInitShape<typeof ClaimKeysResponseSchema> & MessageInitShape<typeof QueryKeysResponseSchema> {
  return { json: Buffer.from(json), failedAppserviceIds: [...failedAppserviceIds] };
}
