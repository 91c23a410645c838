/**
 * A bare grpc-js server for SubmitEvents and StreamEvents, which decodes the messages with the generated code and answers
 * as `answerTo` says. Prints {"address": "host:port"}; ends with its parent.
 */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageShape } from '@bufbuild/protobuf';
import type { sendUnaryData, ServerDuplexStream, ServerUnaryCall } from '@grpc/grpc-js';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { SubmitEventsRequestSchema, SubmitEventsResponseSchema } from '../gen/matrix/appservice/v1/appservice_router_service_pb.ts';

export type BareRequest = MessageShape<typeof SubmitEventsRequestSchema>;
export type BareAnswer = MessageShape<typeof SubmitEventsResponseSchema>;

function encode(message: BareAnswer): Buffer {
  const bytes = toBinary(SubmitEventsResponseSchema, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const codec = {
  requestSerialize: (): Buffer => Buffer.alloc(0),
  requestDeserialize: (bytes: Buffer): BareRequest => fromBinary(SubmitEventsRequestSchema, bytes),
  responseSerialize: encode,
  responseDeserialize: (bytes: Buffer): BareAnswer => fromBinary(SubmitEventsResponseSchema, bytes),
};
const service = '/matrix.appservice.v1.AppserviceRouter';

/** Answers each request in its order on a stream, if `answerTo` calls back in order. */
export function serveBare(answerTo: (request: BareRequest, callback: (answer: BareAnswer) => void) => void): void {
  const server = new Server({ 'grpc.max_receive_message_length': 16 * 1024 * 1024 });
  server.addService(
    {
      submitEvents: { path: `${service}/SubmitEvents`, requestStream: false, responseStream: false, ...codec },
      streamEvents: { path: `${service}/StreamEvents`, requestStream: true, responseStream: true, ...codec },
    },
    {
      submitEvents: (call: ServerUnaryCall<BareRequest, BareAnswer>, callback: sendUnaryData<BareAnswer>) => answerTo(call.request, (answer) => callback(null, answer)),
      streamEvents: (call: ServerDuplexStream<BareRequest, BareAnswer>) => {
        let unanswered = 0;
        let isEnded = false;
        const endOnceAnswered = (): void => {
          if (isEnded && unanswered === 0) call.end();
        };
        call.on('data', (request: BareRequest) => {
          unanswered++;
          answerTo(request, (answer) => {
            call.write(answer);
            unanswered--;
            endOnceAnswered();
          });
        });
        call.on('end', () => {
          isEnded = true;
          endOnceAnswered();
        });
      },
    },
  );
  server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
    if (error !== null) throw error;
    console.log(JSON.stringify({ address: `127.0.0.1:${port}` }));
  });
  process.on('disconnect', () => process.exit(0));
  process.on('SIGTERM', () => process.exit(0));
}
