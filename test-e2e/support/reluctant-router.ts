/**
 * A gRPC server in front of a router. It passes every call on but those that its script says: of a method's first calls it
 * refuses some before the router hears of them, with the delay after which to repeat them, and loses the answers of others
 * that the router has carried out.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import type { DescService } from '@bufbuild/protobuf';
import { anyPack, DurationSchema } from '@bufbuild/protobuf/wkt';
import { Client, credentials, Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import type { handleServerStreamingCall, handleUnaryCall, MethodDefinition, ServiceError, UntypedServiceImplementation } from '@grpc/grpc-js';
import { RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';

export type Step = { readonly kind: 'refuse'; readonly code: 'UNAVAILABLE' | 'RESOURCE_EXHAUSTED'; readonly retryDelayMs: number } | { readonly kind: 'lose' };

const sameBytes = (bytes: Buffer): Buffer => bytes;

export class ReluctantRouter implements AsyncDisposable {
  /** What became of each call of the scripted method, in their order. */
  readonly outcomes: (Step['kind'] | 'pass')[] = [];
  address = '';
  readonly #server = new Server();
  readonly #client: Client;
  readonly #method: string;
  readonly #script: Step[];

  private constructor(routerAddress: string, method: string, script: readonly Step[]) {
    this.#client = new Client(routerAddress, credentials.createInsecure());
    this.#method = method;
    this.#script = [...script];
  }

  /** `script` says what becomes of the first calls of the unary `method`; what comes after them passes. */
  static async open(routerAddress: string, method: string, script: readonly Step[]): Promise<ReluctantRouter> {
    const front = new ReluctantRouter(routerAddress, method, script);
    for (const service of [AppserviceRouter, AppserviceAdmin]) front.#serve(service);
    const port = await new Promise<number>((resolve, reject) => {
      front.#server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error)));
    });
    front.address = `127.0.0.1:${port}`;
    return front;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#server.forceShutdown();
    this.#client.close();
    return Promise.resolve();
  }

  #serve(service: DescService): void {
    const definition: Record<string, MethodDefinition<Buffer, Buffer>> = {};
    const implementation: UntypedServiceImplementation = {};
    for (const { name, methodKind } of service.methods) {
      if (methodKind !== 'unary' && methodKind !== 'server_streaming') continue;
      const path = `/${service.typeName}/${name}`;
      definition[name] = {
        path,
        requestStream: false,
        responseStream: methodKind === 'server_streaming',
        requestSerialize: sameBytes,
        requestDeserialize: sameBytes,
        responseSerialize: sameBytes,
        responseDeserialize: sameBytes,
      };
      implementation[name] = methodKind === 'unary' ? this.#unary(path, name) : this.#stream(path);
    }
    this.#server.addService(definition, implementation);
  }

  #unary(path: string, name: string): handleUnaryCall<Buffer, Buffer> {
    return (call, answer) => {
      const step = name === this.#method ? this.#script.shift() : undefined;
      if (name === this.#method) this.outcomes.push(step?.kind ?? 'pass');
      if (step?.kind === 'refuse') return answer(refusal(step.code, step.retryDelayMs));
      this.#client.makeUnaryRequest(path, sameBytes, sameBytes, call.request, credentialOf(call.metadata), (error, response) => {
        if (step?.kind === 'lose') answer({ code: status.UNAVAILABLE, details: 'The connection broke.' });
        else answer(error === null ? null : statusOf(error), response);
      });
    };
  }

  #stream(path: string): handleServerStreamingCall<Buffer, Buffer> {
    return (call) => {
      const source = this.#client.makeServerStreamRequest(path, sameBytes, sameBytes, call.request, credentialOf(call.metadata));
      // Some clients wait for the headers before they go on.
      source.on('metadata', () => call.sendMetadata(new Metadata()));
      source.on('data', (bytes: Buffer) => call.write(bytes));
      source.on('end', () => call.end());
      source.on('error', (error: ServiceError) => call.emit('error', statusOf(error)));
      call.on('cancelled', () => source.cancel());
    };
  }
}

/** The headers of a call that are the caller's own. */
function credentialOf(metadata: Metadata): Metadata {
  const own = new Metadata();
  for (const value of metadata.get('authorization')) own.set('authorization', value);
  return own;
}

function statusOf({ code, details, metadata }: ServiceError): { code: number; details: string; metadata: Metadata } {
  const own = new Metadata();
  for (const value of metadata.get('grpc-status-details-bin')) own.set('grpc-status-details-bin', value);
  return { code, details, metadata: own };
}

function refusal(name: 'UNAVAILABLE' | 'RESOURCE_EXHAUSTED', retryDelayMs: number): { code: number; details: string; metadata: Metadata } {
  const details = 'Not now.';
  const retryDelay = create(DurationSchema, { seconds: BigInt(Math.floor(retryDelayMs / 1_000)), nanos: (retryDelayMs % 1_000) * 1_000_000 });
  const told = create(StatusSchema, { code: status[name], message: details, details: [anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay }))] });
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, told)));
  return { code: status[name], details, metadata };
}
