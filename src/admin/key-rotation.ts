/**
 * Answers RotateEncryptionKey: a new key seals from now on, and what is sealed with older ones is sealed anew.
 *
 *   all sealed with the newest? ──yes──▶ new key into the file ──▶ put each registration again, sealed anew, through the log
 *              └──no: a rotation did not end, or the file was changed by hand────▲                      └──▶ none is left: the fold is saved
 *
 * Each step is durable before the next and can be repeated, so after a crash anywhere the next call goes on: the key is in
 * the file before anything is sealed with it, and a registration is sealed with the one or the other at every position.
 * Other routers that read the same file learn the key when they first meet it in the log, or seal something.
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { AddedKey } from '../registration/key-file.ts';
import type { Vault } from '../registration/vault.ts';
import type { KeyRotationRequest, KeyRotationResult } from '../rpc/ports.ts';
import type { Logger } from '../logger.ts';
import type { Registrar } from './registrar.ts';

export interface KeyRotationOptions {
  readonly vault: Vault;
  /** Null: the keys are in no file. */
  readonly keyFile: { addSealingKey(): Promise<AddedKey> } | null;
  /** Of all homeservers that this process serves. */
  readonly registrars: () => readonly Pick<Registrar, 'reseal' | 'list'>[];
  /** Resolves once a start reads nothing any more that was sealed before. Rejects with a StoreError. */
  readonly saveFolds: () => Promise<unknown>;
  /** True if no other process can have the store. */
  readonly isStoreExclusive: boolean;
  readonly logger: Logger;
}

export class KeyRotation {
  readonly #options: KeyRotationOptions;
  #isRunning = false;

  constructor(options: KeyRotationOptions) {
    this.#options = options;
  }

  /** Rejects with a RefusalError or a StoreError; what was sealed anew by then stays so. */
  async rotate(request: KeyRotationRequest): Promise<KeyRotationResult> {
    if (this.#isRunning) throw forbidden('The encryption key is being rotated already. Ask again when that has ended.');
    this.#isRunning = true;
    try {
      return await this.#rotate(request);
    } finally {
      this.#isRunning = false;
    }
  }

  async #rotate(request: KeyRotationRequest): Promise<KeyRotationResult> {
    const { vault, registrars, logger, saveFolds } = this.#options;
    vault.reread();
    const isUnfinished = registrars().some((registrar) => registrar.list().some(({ stored }) => stored !== null && !vault.isSealedAnew(stored)));
    const wantsKey = !isUnfinished && (request.replacedKeyId === undefined || request.replacedKeyId === vault.sealingKeyId);
    if (wantsKey) await this.#addKey(request);
    let resealedCount = 0;
    for (const registrar of registrars()) for (let count = await registrar.reseal(); count > 0; count = await registrar.reseal()) resealedCount += count;
    // Until then a start would read the log from before the rotation, and need the keys of then.
    await saveFolds();
    const { sealingKeyId } = vault;
    logger.info({ key_id: sealingKeyId, key_created: wantsKey, resealed_count: resealedCount }, 'the encryption key was rotated');
    return { sealingKeyId, keyCreated: wantsKey, resealedCount, keys: this.#counts() };
  }

  async #addKey({ sharedKeyFile }: KeyRotationRequest): Promise<void> {
    const { vault, keyFile, isStoreExclusive } = this.#options;
    if (!isStoreExclusive && !sharedKeyFile) {
      const message =
        'Other routers may share this store, and one that does not read the same encryption key file could not read the registrations any more. Say shared_key_file if all read this file; ' +
        'if each has a copy, put the new key second in all of them, then first, and ask again.';
      throw forbidden(message);
    }
    if (keyFile === null) throw forbidden('The encryption keys of this router are in no file, so none can be added.');
    const added = await keyFile.addSealingKey();
    if (added.kind === 'refused') throw forbidden(added.message);
    vault.adopt(added.keys);
  }

  #counts(): KeyRotationResult['keys'] {
    const { vault, registrars } = this.#options;
    const counts = new Map(vault.keyIds.map((keyId) => [keyId, 0]));
    for (const registrar of registrars()) {
      for (const { stored } of registrar.list()) for (const keyId of stored === null ? [] : vault.sealedWith(stored)) counts.set(keyId, (counts.get(keyId) ?? 0) + 1);
    }
    return [...counts].map(([keyId, registrationCount]) => ({ keyId, registrationCount }));
  }
}

function forbidden(message: string): RefusalError {
  return new RefusalError('KEY_ROTATION_FORBIDDEN', message);
}
