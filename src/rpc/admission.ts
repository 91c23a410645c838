/**
 * Keeps strangers out of the gRPC port before anything of their message is read. grpc-js hands a unary call to its method
 * with the message whole; an interceptor sees the metadata first. It stands in every call's way, so it passes things on
 * directly: by itself ServerInterceptingCall, which can do more, takes twice as long.
 */
import type { Metadata, ServerInterceptor, status } from '@grpc/grpc-js';
import { ServerInterceptingCall } from '@grpc/grpc-js';

/** What a call is refused with. */
export interface CallFailure {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;
}

type InnerCall = Parameters<ServerInterceptor>[1];
type Listener = Parameters<InnerCall['start']>[0];

/** Null lets a call in. */
type Refusal = (method: string, metadata: Metadata) => CallFailure | null;

/** `refusal` gives what keeps a call out, by `service/method` and its metadata; null lets it in. */
export function admission(refusal: Refusal): ServerInterceptor {
  return ({ path }, call) => new GuardedCall(call, path.slice(1), refusal);
}

class GuardedCall extends ServerInterceptingCall {
  readonly #call: InnerCall;
  readonly #method: string;
  readonly #refusal: Refusal;

  constructor(call: InnerCall, method: string, refusal: Refusal) {
    super(call);
    this.#call = call;
    this.#method = method;
    this.#refusal = refusal;
  }

  override start(listener: Listener): void {
    this.#call.start({
      onReceiveMetadata: (metadata) => {
        const refused = this.#refusal(this.#method, metadata);
        if (refused === null) listener.onReceiveMetadata(metadata);
        else this.#call.sendStatus(refused);
      },
      onReceiveMessage: (message) => listener.onReceiveMessage(message),
      onReceiveHalfClose: () => listener.onReceiveHalfClose(),
      onCancel: () => listener.onCancel(),
    });
  }

  override sendMetadata(metadata: Metadata): void {
    this.#call.sendMetadata(metadata);
  }

  override sendMessage(message: unknown, sent: () => void): void {
    this.#call.sendMessage(message, sent);
  }

  override sendStatus(ending: Parameters<InnerCall['sendStatus']>[0]): void {
    this.#call.sendStatus(ending);
  }
}
