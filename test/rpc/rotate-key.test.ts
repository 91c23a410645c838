import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { AppserviceAdmin, RotateEncryptionKeyResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { codeName } from '../../src/rpc/status.ts';
import { call, Doors, failing, failureOf, PROTOCOLS, TOKENS } from './doors.ts';

const { rotateEncryptionKey } = AppserviceAdmin.method;

for (const protocol of PROTOCOLS) {
  test(`RotateEncryptionKey answers with its counts, and only an operator of all homeservers may call it, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: unknown[] = [];
    const { rotateEncryptionKey: rotate } = doors.house.admin;
    doors.house.admin.rotateEncryptionKey = (order) => {
      asked.push(order);
      return rotate(order);
    };
    const answer = await call(doors, protocol, rotateEncryptionKey, { replacedKeyId: '01020304', sharedKeyFile: true, reason: ' a year is over ' }, TOKENS.admin);
    assert.deepEqual(toJson(RotateEncryptionKeyResponseSchema, answer), { sealingKeyId: '0a0b0c0d', keyCreated: true, resealedCount: 2, keys: [{ keyId: '0a0b0c0d', registrationCount: 2 }, { keyId: '01020304' }] });
    assert.deepEqual(asked, [{ replacedKeyId: '01020304', sharedKeyFile: true, reason: 'a year is over', actor: 'admin' }]);
    for (const [token, reason] of [[TOKENS.bound, 'SERVER_NAME_FORBIDDEN'], [TOKENS.monitor, 'ROLE_FORBIDDEN'], [TOKENS.homeserver, 'ROLE_FORBIDDEN']] as const) {
      assert.equal(failureOf(await failing(call(doors, protocol, rotateEncryptionKey, {}, token))).reason, reason);
    }
    assert.equal(failureOf(await failing(call(doors, protocol, rotateEncryptionKey, { reason: 'x'.repeat(1_025) }, TOKENS.admin))).field, 'reason');
    doors.house.admin.rotateEncryptionKey = () => Promise.reject(new RefusalError('KEY_ROTATION_FORBIDDEN', 'Not now.'));
    const { code, reason, message } = failureOf(await failing(call(doors, protocol, rotateEncryptionKey, {}, TOKENS.admin)));
    assert.deepEqual([codeName(code), reason, message, asked.length], ['FAILED_PRECONDITION', 'KEY_ROTATION_FORBIDDEN', 'Not now.', 1]);
  });
}
