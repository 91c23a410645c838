/**
 * A homeserver's transactions. One is answered `{}` once all that is good in it is durable. What is answered otherwise comes
 * again, as often as it takes, so only that is which may go better the next time: the store is away, the router ends, the
 * body was damaged on the way. An item that no repetition makes good is shelved; a body that is no JSON is refused once and,
 * if it comes again under its txn id, shelved as well.
 *
 * Transactions that run side by side are limited; each takes the memory of one piece (transaction-reader.ts).
 */
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { IngressAnswer } from '../rpc/ports.ts';
import { answerFor, DONE, matrixError } from './answers.ts';
import type { MatchedRequest } from './answers.ts';
import type { IngressHomeserver, TransactionPiece } from './ports.ts';
import type { RoomLookups } from './room-lookups.ts';
import type { Shelf } from './shelf.ts';
import { readTransaction } from './transaction-reader.ts';
import type { ReaderLimits } from './transaction-reader.ts';

export interface TransactionsOptions {
  readonly homeserver: Pick<IngressHomeserver, 'takeTransaction'>;
  readonly shelf: Shelf;
  readonly rooms: Pick<RoomLookups, 'prepare'> | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: ReaderLimits;
}

const TRANSACTIONS_MAX = 16;
const TXN_ID_LENGTH_MAX = 255;
const BROKEN_IDS_MAX = 64;

export class Transactions {
  readonly #options: TransactionsOptions;
  /** Txn ids whose body was refused as no JSON. */
  readonly #broken = new Set<string>();
  #underWay = 0;
  #lastTimeMs: number | null = null;
  #gapSinceMs: number | null;

  constructor(options: TransactionsOptions) {
    this.#options = options;
    this.#gapSinceMs = options.clock.nowMs();
  }

  /** Wall clock at which the last was taken; null before the first since the start. */
  get lastTimeMs(): number | null {
    return this.#lastTimeMs;
  }

  /**
   * Wall clock of the start, or of the first refusal since the last that was taken; null: the last was taken. A homeserver
   * repeats what was refused, but not one that was restarted meanwhile: that one begins with its next event.
   */
  get gapSinceMs(): number | null {
    return this.#gapSinceMs;
  }

  /** Never rejects. */
  async take(request: MatchedRequest): Promise<IngressAnswer> {
    const { clock } = this.#options;
    const answer = await this.#answer(request);
    if (answer.status === 200) {
      this.#lastTimeMs = clock.nowMs();
      this.#gapSinceMs = null;
    } else this.#gapSinceMs ??= clock.nowMs();
    return answer;
  }

  async #answer({ captured: [txnId = ''], body }: MatchedRequest): Promise<IngressAnswer> {
    const { limits, logger, shelf } = this.#options;
    if (txnId.length > TXN_ID_LENGTH_MAX) return matrixError(400, 'M_INVALID_PARAM', `A transaction id has at most ${TXN_ID_LENGTH_MAX} characters.`);
    if (this.#underWay >= TRANSACTIONS_MAX) return matrixError(429, 'M_LIMIT_EXCEEDED', 'Too many transactions are under way. Send it again in a second.');
    const shelved = shelf.of(txnId);
    this.#underWay++;
    try {
      const reading = await readTransaction(txnId, body, { take: (piece) => this.#takePiece(piece), shelve: (item) => shelved.shelve(item) }, limits);
      if (reading === 'broken' && this.#isFirstBroken(txnId)) return matrixError(400, 'M_NOT_JSON', 'The body is no JSON object. Send the transaction again.');
      if (reading !== 'whole') {
        const reason = reading === 'cut' ? `A transaction has at most ${limits.bodyBytesMax} bytes; the rest of this one was not read.` : 'The body is no JSON object; what could be read of it was taken.';
        await shelved.shelve({ kind: 'body', reason, json: Buffer.from(`transaction ${txnId}`) });
      }
      return DONE;
    } catch (cause) {
      return answerFor(cause, logger);
    } finally {
      this.#underWay--;
      shelved.end();
    }
  }

  async #takePiece(piece: TransactionPiece): Promise<void> {
    const { homeserver, rooms } = this.#options;
    await rooms?.prepare(piece);
    await homeserver.takeTransaction(piece);
  }

  #isFirstBroken(txnId: string): boolean {
    if (this.#broken.delete(txnId)) return false;
    for (const oldest of this.#broken) {
      if (this.#broken.size < BROKEN_IDS_MAX) break;
      this.#broken.delete(oldest);
    }
    this.#broken.add(txnId);
    return true;
  }
}
