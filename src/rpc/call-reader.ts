/**
 * Reads the messages of a streaming gRPC call. The call's own async iterator destroys the call when its reader stops or
 * fails, and a destroyed call of grpc-js sends no status: the caller would wait for ever. This one only reads.
 */
export interface ReadableCall<Message> {
  readonly cancelled: boolean;
  readonly readableEnded: boolean;
  readonly destroyed: boolean;
  read(): Message | null;
  on(event: string, listener: () => void): unknown;
}

const EVENTS = ['readable', 'end', 'close', 'cancelled', 'error'] as const;

/** For one reader. Ends with the call. */
export function messagesOf<Message>(call: ReadableCall<Message>): AsyncIterable<Message> {
  let wake: (() => void) | null = null;
  for (const event of EVENTS) call.on(event, () => wake?.());
  const next = async (): Promise<IteratorResult<Message>> => {
    for (;;) {
      if (call.cancelled || call.destroyed) return { done: true, value: undefined };
      const message = call.read();
      if (message !== null) return { done: false, value: message };
      if (call.readableEnded) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { [Symbol.asyncIterator]: () => ({ next }) };
}
