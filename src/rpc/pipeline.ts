export interface PipelineLimits<Request> {
  /** Requests that are worked on at a time. */
  readonly inFlightMax: number;
  /** Their bytes together; a single request may be larger. */
  readonly bytesMax: number;
  readonly bytesOf: (request: Request) => number;
}

/**
 * Answers a stream of requests in their order while several are being worked on, so that a stream's messages share a
 * group commit. Reading stops while the limits are reached; a request that fails ends the stream after the answers
 * before it.
 */
export async function* pipelined<Request, Answer>(
  requests: AsyncIterable<Request>,
  answer: (request: Request) => Promise<Answer>,
  { inFlightMax, bytesMax, bytesOf }: PipelineLimits<Request>,
): AsyncGenerator<Answer> {
  const iterator = requests[Symbol.asyncIterator]();
  const inFlight: { readonly answer: Promise<Answer>; readonly bytes: number }[] = [];
  let bytesInFlight = 0;
  let reading: Promise<IteratorResult<Request>> | null = read(iterator);
  while (reading !== null || inFlight.length > 0) {
    const [oldest] = inFlight;
    if (reading !== null && inFlight.length < inFlightMax && bytesInFlight < bytesMax) {
      const arrived: IteratorResult<Request> | null = await (oldest === undefined ? orFailed(reading) : Promise.race([orFailed(reading), oldest.answer.then(nothing, nothing)]));
      if (arrived !== null) {
        reading = null;
        if (arrived.done === true) continue;
        const answering = answer(arrived.value);
        answering.catch(nothing);
        const bytes = bytesOf(arrived.value);
        inFlight.push({ answer: answering, bytes });
        bytesInFlight += bytes;
        reading = read(iterator);
        continue;
      }
    }
    if (oldest === undefined) {
      // Reading failed, and everything before is answered.
      await reading;
      return;
    }
    const answered = await oldest.answer;
    inFlight.shift();
    bytesInFlight -= oldest.bytes;
    yield answered;
  }
}

function read<Request>(iterator: AsyncIterator<Request>): Promise<IteratorResult<Request>> {
  const reading = iterator.next();
  reading.catch(nothing);
  return reading;
}

/** Null if it fails: what came before is answered first. */
function orFailed<Result>(promise: Promise<Result>): Promise<Result | null> {
  return promise.catch(nothing);
}

function nothing(): null {
  return null;
}

/** The items until `signal` aborts; then it ends, whether or not another one is on its way. */
export async function* untilAborted<Item>(items: AsyncIterable<Item>, signal: AbortSignal): AsyncGenerator<Item> {
  const iterator = items[Symbol.asyncIterator]();
  while (!signal.aborted) {
    const arrived = await nextOrAborted(iterator, signal);
    if (arrived === null || arrived.done === true) return;
    yield arrived.value;
  }
}

function nextOrAborted<Item>(iterator: AsyncIterator<Item>, signal: AbortSignal): Promise<IteratorResult<Item> | null> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => resolve(null);
    signal.addEventListener('abort', aborted, { once: true });
    const settled = (): void => signal.removeEventListener('abort', aborted);
    iterator.next().then(
      (result) => {
        settled();
        resolve(result);
      },
      (error: unknown) => {
        settled();
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}
