/** rotate-key: a new key seals the tokens of all appservices, and what older ones sealed is sealed anew. */
import { AppserviceAdmin, RotateEncryptionKeyResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { RotateEncryptionKeyResponse } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { jsonFrom } from '../rpc/admin-client.ts';
import { deadlineMs, printJson } from './context.ts';
import type { RouterContext } from './context.ts';
import { table } from './table.ts';
import { coloured, EXIT } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

export interface RotateKeyOptions {
  readonly reason: string;
  /** The key that is to be replaced; a repetition then makes no further one. */
  readonly replacedKey?: string;
  readonly sharedKeyFile?: true;
}

export async function rotateKey(context: RouterContext, { reason, replacedKey, sharedKeyFile }: RotateKeyOptions): Promise<ExitCode> {
  const { router, terminal, json } = context;
  const request = { reason, replacedKeyId: replacedKey, sharedKeyFile: sharedKeyFile === true };
  const answer = await router.call(AppserviceAdmin.method.rotateEncryptionKey, request, deadlineMs(context));
  if (json) printJson(context, jsonFrom(RotateEncryptionKeyResponseSchema, answer));
  else terminal.out(`${coloured(terminal, 'green', '✔')} ${sentenceOf(answer)}\n\n${table(['key', 'seals', 'registrations'], rowsOf(answer))}`);
  return EXIT.ok;
}

function sentenceOf({ keyCreated, resealedCount, sealingKeyId }: RotateEncryptionKeyResponse): string {
  const resealed = `${resealedCount} ${resealedCount === 1 ? 'registration was' : 'registrations were'} sealed anew`;
  if (keyCreated) return `The new key ${sealingKeyId} seals from now on; ${resealed}. Keep a copy of the encryption key file as it is now.`;
  return resealedCount === 0 ? `The key ${sealingKeyId} seals everything already; no key was made.` : `A rotation to the key ${sealingKeyId} was unfinished; ${resealed}, and no further key was made.`;
}

function rowsOf({ keys, sealingKeyId }: RotateEncryptionKeyResponse): string[][] {
  return keys.map(({ keyId, registrationCount }) => [keyId, keyId === sealingKeyId ? 'yes' : 'no', String(registrationCount)]);
}
