/** Which ids a group takes over for the first time; see seen-ids.ts. */
import type { RoutingEvent } from '../appservice/event.ts';
import type { Segment } from '../store/segment.ts';
import type { SeenId, SeenIds } from './seen-ids.ts';
import { textFromSeenIds } from './seen-ids.ts';
import type { SubmissionIds } from './submission.ts';

export class NewIds {
  readonly #seen: SeenIds;
  readonly #ids = new Set<SeenId>();
  #hasMembership = false;

  constructor(seen: SeenIds) {
    this.#seen = seen;
  }

  get all(): readonly SeenId[] {
    return [...this.#ids];
  }

  /** A membership that comes again must not bring back what has changed since, so its id is never left to memory alone. */
  get needLog(): boolean {
    return this.#hasMembership || (this.#ids.size > 0 && this.#seen.isFarAhead);
  }

  /** False if the event was taken over before. */
  takeEvent(ids: SubmissionIds, at: number, event: RoutingEvent): boolean {
    const id = ids.events[at];
    if (id === undefined) throw new Error('an event has no id');
    if (!this.#take(id)) return false;
    if (event.type === 'm.room.member') this.#hasMembership = true;
    return true;
  }

  /** False if what the submission has beside events was taken over before. */
  takeOthers({ others }: SubmissionIds): boolean {
    if (others === undefined) return true;
    return !others.some((id) => this.#isKnown(id)) && this.#take(others[0]);
  }

  /** For the group's segment, those that ran ahead included. */
  facts(): Pick<Segment, 'seenIds'> {
    const ids = [...this.#seen.ahead, ...this.#ids];
    return ids.length === 0 ? {} : { seenIds: textFromSeenIds(ids) };
  }

  #isKnown(id: SeenId): boolean {
    return this.#seen.has(id) || this.#ids.has(id);
  }

  #take(id: SeenId): boolean {
    if (this.#isKnown(id)) return false;
    this.#ids.add(id);
    return true;
  }
}
