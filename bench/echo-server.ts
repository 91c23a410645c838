/**
 * The baseline: a bare grpc-js server that decodes the same messages and answers at once. Nothing is done with them.
 * Prints {"address": "host:port"}.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageShape } from '@bufbuild/protobuf';
import type { sendUnaryData, ServerDuplexStream, ServerUnaryCall } from '@grpc/grpc-js';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { SubmitEventsRequestSchema, SubmitEventsResponseSchema } from '../gen/matrix/appservice/v1/appservice_router_service_pb.ts';

type Request = MessageShape<typeof SubmitEventsRequestSchema>;
type Answer = MessageShape<typeof SubmitEventsResponseSchema>;

function encode(message: Answer): Buffer {
  const bytes = toBinary(SubmitEventsResponseSchema, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const codec = {
  requestSerialize: (): Buffer => Buffer.alloc(0),
  requestDeserialize: (bytes: Buffer): Request => fromBinary(SubmitEventsRequestSchema, bytes),
  responseSerialize: encode,
  responseDeserialize: (bytes: Buffer): Answer => fromBinary(SubmitEventsResponseSchema, bytes),
};
const service = '/matrix.appservice.v1.AppserviceRouter';
const answerTo = (request: Request): Answer => create(SubmitEventsResponseSchema, { accepted: request.events.length, routed: request.events.length });

const server = new Server({ 'grpc.max_receive_message_length': 16 * 1024 * 1024 });
server.addService(
  {
    submitEvents: { path: `${service}/SubmitEvents`, requestStream: false, responseStream: false, ...codec },
    streamEvents: { path: `${service}/StreamEvents`, requestStream: true, responseStream: true, ...codec },
  },
  {
    submitEvents: (call: ServerUnaryCall<Request, Answer>, callback: sendUnaryData<Answer>) => callback(null, answerTo(call.request)),
    streamEvents: (call: ServerDuplexStream<Request, Answer>) => {
      call.on('data', (request: Request) => call.write(answerTo(request)));
      call.on('end', () => call.end());
    },
  },
);
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  console.log(JSON.stringify({ address: `127.0.0.1:${port}` }));
});
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
