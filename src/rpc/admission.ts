/**
 * Keeps strangers out of the gRPC port before anything of their message is read. grpc-js hands a unary call to its method
 * with the message whole; an interceptor sees the metadata first.
 */
import type { Metadata, ServerInterceptor, status } from '@grpc/grpc-js';
import { ServerInterceptingCall } from '@grpc/grpc-js';

/** What a call is refused with. */
export interface CallFailure {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;
}

/** `refusal` gives what keeps a call out, by `service/method` and its metadata; null lets it in. */
export function admission(refusal: (method: string, metadata: Metadata) => CallFailure | null): ServerInterceptor {
  return ({ path }, call) => {
    const method = path.slice(1);
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata(metadata, proceed) {
            const refused = refusal(method, metadata);
            if (refused === null) proceed(metadata);
            else call.sendStatus(refused);
          },
        }),
    });
  };
}
