import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeFolder } from '../src/folder.ts';

const root = mkdtempSync(join(tmpdir(), 'router-folder-'));
after(() => rmSync(root, { recursive: true, force: true }));

test('a folder is made with those above it, for its owner alone, and may be there already', () => {
  const folder = join(root, 'a', 'b', 'c');
  makeFolder(folder);
  makeFolder(folder);
  makeFolder('.');
  assert.deepEqual([folder, join(root, 'a')].map((path) => statSync(path).mode & 0o777), [0o700, 0o700]);
});

test('where no folder can be made it says so', () => {
  const file = join(root, 'file');
  writeFileSync(file, '');
  symlinkSync(join(root, 'nowhere'), join(root, 'link'));
  const codeOf = (path: string): unknown => {
    try {
      makeFolder(path);
      return 'made';
    } catch (error) {
      return error instanceof Error && 'code' in error ? error.code : error;
    }
  };
  const places = [file, join(file, 'below'), join(root, 'link'), join(root, 'link', 'below')];
  assert.deepEqual(places.map(codeOf), ['ENOTDIR', 'ENOTDIR', 'ENOENT', 'ENOENT']);
});

test('where the system says of a folder to be made that it is missing, it ends', { skip: process.platform !== 'linux' && 'needs /proc' }, () => {
  assert.throws(() => makeFolder('/proc/nowhere/below'), { code: 'ENOENT' });
});
