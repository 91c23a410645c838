/** The ingress's status as the contract has it. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { IngressSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { IngressStatus } from './ports.ts';

export function ingressTo({ lastTransactionTimeMs, shelvedItemCount, unknownRoomCount, unknownRoomIds, problem, gapSinceMs }: IngressStatus): MessageInitShape<typeof IngressSchema> {
  return {
    ...(lastTransactionTimeMs === null ? {} : { lastTransactionTime: timestampFromMs(lastTransactionTimeMs) }),
    shelvedItems: BigInt(shelvedItemCount),
    unknownRooms: BigInt(unknownRoomCount),
    unknownRoomIds: [...unknownRoomIds],
    ...(problem === null ? {} : { problem }),
    ...(gapSinceMs === null ? {} : { gapSince: timestampFromMs(gapSinceMs) }),
  };
}
