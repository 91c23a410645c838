/**
 * Answers a stream of requests in their order while several are being worked on, so that a stream's messages share a
 * group commit. Reading stops while `inFlightMax` wait; a request that fails ends the stream after the answers before it.
 */
export async function* pipelined<Request, Answer>(
  requests: AsyncIterable<Request>,
  answer: (request: Request) => Promise<Answer>,
  inFlightMax: number,
): AsyncGenerator<Answer> {
  const iterator = requests[Symbol.asyncIterator]();
  const inFlight: Promise<Answer>[] = [];
  let reading: Promise<IteratorResult<Request>> | null = iterator.next();
  reading.catch(() => undefined);
  while (reading !== null || inFlight.length > 0) {
    const [oldest] = inFlight;
    if (reading !== null && inFlight.length < inFlightMax) {
      const arrived: IteratorResult<Request> | null = await (oldest === undefined ? reading : Promise.race([reading, oldest.then(nothing, nothing)]));
      if (arrived !== null) {
        reading = null;
        if (arrived.done === true) continue;
        const answering = answer(arrived.value);
        answering.catch(() => undefined);
        inFlight.push(answering);
        reading = iterator.next();
        reading.catch(() => undefined);
        continue;
      }
    }
    if (oldest === undefined) continue;
    const answered = await oldest;
    inFlight.shift();
    yield answered;
  }
}

function nothing(): null {
  return null;
}
