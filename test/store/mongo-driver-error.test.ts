import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BSON, MongoAPIError, MongoClientClosedError, MongoNetworkError, MongoParseError, MongoServerError } from 'mongodb';
import { StoreError } from '../../src/store/errors.ts';
import type { StoreErrorKind } from '../../src/store/errors.ts';
import { storeErrorFrom } from '../../src/store/mongo/driver-error.ts';

const serverError = (code: number): MongoServerError => new MongoServerError({ code, errmsg: 'secret words of the server' });

const CASES: readonly (readonly [string, Error, StoreErrorKind])[] = [
  ['a broken connection', new MongoNetworkError('secret.host refused'), 'unavailable'],
  ['a socket that breaks in the middle of a write', Object.assign(new Error('write ECONNRESET secret'), { code: 'ECONNRESET', syscall: 'write', errno: -104 }), 'unavailable'],
  ['a socket that is closed already', Object.assign(new Error('secret'), { code: 'ERR_STREAM_DESTROYED' }), 'unavailable'],
  ['a closed client', new MongoClientClosedError(), 'unavailable'],
  ['a primary that steps down', serverError(10_107), 'unavailable'],
  ['a majority that does not confirm', serverError(64), 'unavailable'],
  ['a read that takes too long', serverError(50), 'unavailable'],
  ['a code that nobody has heard of', serverError(987_654), 'unavailable'],
  ['a misuse of the driver', new MongoAPIError('secret'), 'unavailable'],
  ['a URI that does not parse', new MongoParseError('secret'), 'unsuitable'],
  ['refused credentials', serverError(18), 'unsuitable'],
  ['a missing permission', serverError(13), 'unsuitable'],
  ['a standalone', serverError(20), 'unsuitable'],
  ['a full disk', serverError(14_031), 'exhausted'],
  ['a document that is too large', serverError(10_334), 'exhausted'],
  ['bytes that are no document', new BSON.BSONError('secret'), 'unreadable'],
];

for (const [what, error, kind] of CASES) {
  test(`I12 ${what} is ${kind}, and the driver's words stay in the cause`, () => {
    const mapped = storeErrorFrom(error);
    assert.ok(mapped instanceof StoreError);
    assert.deepEqual([mapped.kind, mapped.cause], [kind, error]);
    assert.ok(!mapped.message.includes('secret'));
  });
}

test('a StoreError stays what it is, and a bug stays a bug', () => {
  for (const error of [new StoreError('exhausted', 'full'), new TypeError('a bug')]) assert.equal(storeErrorFrom(error), error);
});
