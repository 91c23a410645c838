/** The baseline: decodes the messages and answers at once. Nothing is done with them. */
import { create } from '@bufbuild/protobuf';
import { SubmitEventsResponseSchema } from '../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { serveBare } from './bare-server.ts';

serveBare(({ events }, callback) => callback(create(SubmitEventsResponseSchema, { accepted: events.length, routed: events.length })));
