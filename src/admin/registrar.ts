/**
 * Puts and removes registrations of one homeserver: the one path for PutRegistration, DeleteRegistration and files.
 * Uniqueness (R6, R7) is judged on the registrations in force at the very log position at which the change will stand.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Registration } from '../appservice/registration.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { FoldedRegistration } from '../ingest/fold.ts';
import type { Ledger } from '../ingest/ledger.ts';
import { originOf } from '../registration/vault.ts';
import type { RegistrationOrigin, Vault } from '../registration/vault.ts';
import type { RegistrationChange } from '../store/segment.ts';

export interface RegistrarOptions {
  readonly serverName: string;
  readonly registrations: () => ReadonlyMap<string, FoldedRegistration>;
  readonly ledger: Pick<Ledger, 'changeRegistrations'>;
  readonly vault: Pick<Vault, 'seal' | 'tokenHash' | 'isSealedAnew'>;
  /** Most registrations of one homeserver. */
  readonly registrationsMax: number;
}

/** Registrations sealed anew by one segment, and their JSON text together. */
const RESEALED_MAX = 100;
const RESEALED_CHARACTERS_MAX = 1024 * 1024;

export class Registrar {
  readonly #options: RegistrarOptions;

  constructor(options: RegistrarOptions) {
    this.#options = options;
  }

  /** The registration in force. Throws a RefusalError if there is none. */
  get(appserviceId: string): Registration {
    const registration = this.#options.registrations().get(appserviceId)?.registration;
    if (registration === undefined || registration === null) throw notFound(appserviceId);
    return registration;
  }

  /** Those in force, in order of their ids. */
  list(): FoldedRegistration[] {
    return [...this.#options.registrations().values()]
      .filter(({ registration }) => registration !== null)
      .sort((a, b) => (a.appserviceId < b.appserviceId ? -1 : 1));
  }

  /** Those in force with who put them, in order of their ids. */
  origins(): { appserviceId: string; origin: RegistrationOrigin; registration: Registration }[] {
    return this.list().flatMap(({ appserviceId, registration, stored }) =>
      registration === null || stored === null ? [] : [{ appserviceId, origin: originOf(appserviceId, stored), registration }],
    );
  }

  /** Throws a RefusalError if the registration could not be put now. */
  check(registration: Registration, resumeParked: boolean): void {
    this.#judge(this.#options.registrations(), registration, resumeParked);
  }

  /** Resolves when the registration is in force. One that is in force already as it is changes nothing. Rejects with a RefusalError or StoreError. */
  async put(registration: Registration, origin: RegistrationOrigin, resumeParked: boolean): Promise<void> {
    const { ledger, vault, serverName } = this.#options;
    const stored = vault.seal(serverName, registration, origin);
    await ledger.changeRegistrations((registrations): RegistrationChange[] => {
      this.#judge(registrations, registration, resumeParked);
      const known = registrations.get(registration.id);
      if (known !== undefined && known.registration !== null && known.stored?.json === stored.json && isDeepStrictEqual(known.registration, registration)) return [];
      return [{ kind: 'put', appserviceId: registration.id, registration: stored, resumeParked }];
    });
  }

  /** Resolves when the registration is out of force. Rejects with a RefusalError or StoreError. */
  async remove(appserviceId: string, backlog: 'discard' | 'park'): Promise<void> {
    await this.#options.ledger.changeRegistrations((registrations): RegistrationChange[] => {
      const known = registrations.get(appserviceId);
      if (known === undefined) throw notFound(appserviceId);
      // A second DeleteRegistration may give up what the first one parked.
      if (known.registration === null && !(known.backlog === 'park' && backlog === 'discard')) throw notFound(appserviceId);
      return [{ kind: 'removed', appserviceId, backlog }];
    });
  }

  /**
   * Puts registrations that are sealed with an older key as they are, sealed anew; so many as fit well into a segment. How
   * many it were: 0 once none is left. Rejects with a StoreError.
   */
  async reseal(): Promise<number> {
    const { ledger, vault, serverName } = this.#options;
    let count = 0;
    await ledger.changeRegistrations((registrations): RegistrationChange[] => {
      const changes: RegistrationChange[] = [];
      let characters = 0;
      for (const { appserviceId, registration, stored } of registrations.values()) {
        if (registration === null || stored === null || vault.isSealedAnew(stored)) continue;
        if (changes.length >= RESEALED_MAX || (changes.length > 0 && characters + stored.json.length > RESEALED_CHARACTERS_MAX)) break;
        characters += stored.json.length;
        changes.push({ kind: 'put', appserviceId, registration: vault.seal(serverName, registration, originOf(appserviceId, stored)), resumeParked: false });
      }
      count = changes.length;
      return changes;
    });
    return count;
  }

  #judge(registrations: ReadonlyMap<string, FoldedRegistration>, registration: Registration, resumeParked: boolean): void {
    const { vault, registrationsMax } = this.#options;
    const { id } = registration;
    const known = registrations.get(id);
    if (known === undefined && registrations.size >= registrationsMax) {
      throw new RefusalError('INVALID_FIELD', `There are ${registrations.size} appservice ids already, the most there may be.`, { field: 'id' });
    }
    const hash = vault.tokenHash(registration.as_token);
    for (const other of registrations.values()) {
      if (other.appserviceId === id || other.stored?.asTokenHash !== hash) continue;
      const message = `The as_token of "${id}" is that of "${other.appserviceId}" already. Give each appservice a token of its own.`;
      throw new RefusalError('REGISTRATION_CONFLICT', message, { field: 'as_token', metadata: { appservice_id: id, other_appservice_id: other.appserviceId } });
    }
    if (known?.registration === null && known.backlog === 'park' && !resumeParked) {
      const message =
        `"${id}" was removed with its backlog parked. Put it with resume_parked to have that delivered first, ` +
        'or give the backlog up by DeleteRegistration with DISCARD.';
      throw new RefusalError('DELIVERY_STATE_FORBIDS', message, { metadata: { appservice_id: id } });
    }
  }
}

export function notFound(appserviceId: string): RefusalError {
  return new RefusalError('APPSERVICE_NOT_FOUND', `There is no appservice "${appserviceId}". ListAppservices tells which there are.`, {
    metadata: { appservice_id: appserviceId },
  });
}
