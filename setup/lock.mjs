// One set-up at a time in this folder, however many commands are started. The lock is a file that its holder touches
// every few seconds; one that has not been touched for long was left by a process that is gone.
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { say } from './progress.mjs';

const TOUCH_MS = 2_000;
const ABANDONED_MS = 15_000;
const POLL_MS = 300;

/** Waits for the lock. Resolves with a function that gives it back. */
export async function takeLock(path) {
  mkdirSync(dirname(path), { recursive: true });
  const word = `${process.pid} ${Math.random()}`;
  for (let told = false; !tryTake(path, word); ) {
    if (!told) say('» waiting for another set-up of this folder to end …');
    told = true;
    removeIfAbandoned(path, word);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  const timer = setInterval(() => utimesSync(path, new Date(), new Date()), TOUCH_MS);
  timer.unref();
  return () => {
    clearInterval(timer);
    if (wordIn(path) === word) rmSync(path, { force: true });
  };
}

function tryTake(path, word) {
  try {
    writeFileSync(path, word, { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
}

/** Moves the file away before it judges again, since another process may have replaced it since the first look. */
function removeIfAbandoned(path, word) {
  try {
    if (!isAbandoned(path)) return;
    const aside = `${path}.${word.replace(' ', '-')}`;
    renameSync(path, aside);
    if (!isAbandoned(aside)) linkSync(aside, path);
    rmSync(aside, { force: true });
  } catch (error) {
    if (error.code !== 'ENOENT' && error.code !== 'EEXIST') throw error;
  }
}

function isAbandoned(path) {
  return Date.now() - statSync(path).mtimeMs > ABANDONED_MS;
}

function wordIn(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
