import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ingressTokensFrom, loadIngressTokens } from '../../src/ingress/token-file.ts';

const TOKENS = { hs_token: 'secret-of-the-homeserver', as_token: 'secret-of-the-appservice' };

test('tokens are read, with the server name or without', () => {
  assert.deepEqual(ingressTokensFrom(JSON.stringify(TOKENS)), { hsToken: TOKENS.hs_token, asToken: TOKENS.as_token, serverName: null });
  assert.deepEqual(ingressTokensFrom(JSON.stringify({ ...TOKENS, server_name: 'hs.test' })), { hsToken: TOKENS.hs_token, asToken: TOKENS.as_token, serverName: 'hs.test' });
});

test('I12 what is no token file is refused with a sentence that quotes nothing of it', () => {
  const wrong: unknown[] = ['', '[]', 'secret', {}, { ...TOKENS, hs_token: 'short-secret' }, { ...TOKENS, as_token: 7 }, { ...TOKENS, as_token: `${TOKENS.as_token} with space` }, { ...TOKENS, as_token: TOKENS.hs_token }, { ...TOKENS, extra: 'secret' }, { ...TOKENS, server_name: '' }];
  for (const text of wrong) {
    const problem = ingressTokensFrom(typeof text === 'string' ? text : JSON.stringify(text));
    assert.ok(typeof problem === 'string', JSON.stringify(text));
    assert.doesNotMatch(problem, /secret/);
  }
});

test('I12 a token file that others may write is refused, one that they may read is warned of, one that is missing is named', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'ingress-tokens-'));
  try {
    const path = join(dir, 'tokens.json');
    const missing = await loadIngressTokens(path);
    assert.ok(missing.kind === 'missing' && missing.message.includes(path));
    await writeFile(path, JSON.stringify(TOKENS));
    const load = async (mode: number): Promise<unknown[]> => {
      await chmod(path, mode);
      const loading = await loadIngressTokens(path);
      return [loading.kind, loading.kind === 'loaded' ? loading.warnings.length : 0];
    };
    assert.deepEqual(await load(0o600), ['loaded', 0]);
    assert.deepEqual(await load(0o644), ['loaded', 1]);
    assert.deepEqual(await load(0o666), ['invalid', 0]);
    await chmod(path, 0o600);
    await writeFile(path, 'x'.repeat(100_000));
    assert.equal((await loadIngressTokens(path)).kind, 'invalid');
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
