import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findConnection } from '../../src/cli/connection.ts';
import type { ConnectionOptions } from '../../src/cli/connection.ts';
import { loadConfig } from '../../src/config.ts';

const FILES: Readonly<Record<string, string>> = {
  token: 'secret-token\n',
  'data/credentials.json': '{"homeserver": "hs-token", "admin": "admin-token"}',
  'broken.json': '{"admin": secret-token',
  empty: '\n',
  spaced: 'two words',
};

function find(options: ConnectionOptions, env: Record<string, string> = {}, environment: ConnectionOptions = {}): ReturnType<typeof findConnection> {
  const readFile = (path: string): string => {
    const text = FILES[path];
    if (text === undefined) throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    return text;
  };
  return findConnection({ options, environment, loadConfig: () => loadConfig({ argv: [], env }), readFile });
}

test('address and token are those of the settings and of the first start, if nothing is said', () => {
  assert.deepEqual(find({}), { kind: 'found', address: '127.0.0.1:50051', token: 'admin-token' });
  assert.deepEqual(find({}, { ROUTER_GRPC_LISTEN: '0.0.0.0:6000' }), { kind: 'found', address: '127.0.0.1:6000', token: 'admin-token' });
  assert.deepEqual(find({}, { ROUTER_GRPC_LISTEN: '[::]:6000' }), { kind: 'found', address: '127.0.0.1:6000', token: 'admin-token' });
});

test('an option goes before the environment, and with both named no settings are read', () => {
  const bad = { ROUTER_BACKOFF_FIRST_MS: 'x' };
  assert.deepEqual(find({ address: 'router.test:1', tokenFile: 'token' }, bad, { address: 'other:2', tokenFile: 'empty' }), { kind: 'found', address: 'router.test:1', token: 'secret-token' });
  assert.deepEqual(find({}, bad, { address: '[::1]:2', tokenFile: 'token' }), { kind: 'found', address: '[::1]:2', token: 'secret-token' });
  assert.match(String(Reflect.get(find({}, bad), 'message')), /ROUTER_BACKOFF_FIRST_MS.*Or name --address and --token-file\./);
});

test('I12 what cannot be used is told with what to do, and nothing of a token file is shown', () => {
  const message = (options: ConnectionOptions, env: Record<string, string> = {}): string => {
    const found = find(options, env);
    assert.equal(found.kind, 'unknown');
    return found.message;
  };
  assert.match(message({}, { ROUTER_GRPC_LISTEN: '127.0.0.1:0' }), /Name its gRPC address by --address/);
  assert.match(message({}, { ROUTER_DATA_DIR: 'elsewhere' }), /elsewhere\/credentials\.json cannot be read \(ENOENT\)/);
  for (const address of ['router.test', 'http://router.test:1', ':1', 'a b:1']) assert.match(message({ address, tokenFile: 'token' }), /a host and a port/, address);
  for (const tokenFile of ['broken.json', 'empty', 'spaced']) {
    const text = message({ tokenFile });
    assert.match(text, /holds no token/);
    assert.doesNotMatch(text, /secret|two words/);
  }
});
