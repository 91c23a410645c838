// Starting other programs: quietly for a step of the set-up, or in our place for the command itself.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';

const OUTPUT_CHARS_MAX = 4_000_000;
const running = new Set();

/** Runs a program and collects what it prints. Resolves with its exit code and output, whatever they are. */
export function capture(command, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    running.add(child);
    let output = '';
    const collect = (text) => {
      output = (output + text).slice(-OUTPUT_CHARS_MAX);
    };
    child.stdout.setEncoding('utf8').on('data', collect);
    child.stderr.setEncoding('utf8').on('data', collect);
    const end = (code, extra = '') => {
      running.delete(child);
      resolve({ code, output: output + extra });
    };
    child.once('error', (error) => end(127, error.message));
    child.once('close', (code, signal) => end(code ?? 128 + constants.signals[signal]));
  });
}

/** On a signal during the set-up: ends what it started, with all that this started in turn, then this process. */
export function endOnSignals(cleanUp) {
  const end = (signal) => {
    for (const child of running) {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // It ended by itself.
      }
    }
    cleanUp();
    process.exit(128 + constants.signals[signal]);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, end);
  return () => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.removeListener(signal, end);
  };
}

/** A signal that arrives twice within this time was sent once: by the terminal to all, and by npm again to us. */
const SAME_SIGNAL_MS = 500;

/** Runs a program in our place: its terminal is ours, our signals are its, and its end is ours. */
export function become(command, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { ...options, stdio: 'inherit' });
    const lastMs = new Map();
    const forward = (signal) => {
      // The terminal sends these to the whole group, so the child has its own.
      if (process.stdin.isTTY === true && signal !== 'SIGTERM') return;
      const nowMs = Date.now();
      if (nowMs - (lastMs.get(signal) ?? 0) < SAME_SIGNAL_MS) return;
      lastMs.set(signal, nowMs);
      child.kill(signal);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, forward);
    child.once('error', (error) => {
      process.stderr.write(`${command} could not be started: ${error.message}\n`);
      resolve(127);
    });
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
}
