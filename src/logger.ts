/**
 * What the house needs of a log, and its one implementation. The only importer of pino.
 *
 * One structured line per call, to the standard output: JSON for programs, or a short line for people. Fields never carry
 * tokens (I12); as a second line of defence the names and forms that tokens come in are struck out here.
 */
import { writeSync } from 'node:fs';
import { destination, pino } from 'pino';
import type { Clock } from './clock.ts';

/** What the house needs of a log. One structured line per call; fields never carry tokens (I12). */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined | readonly string[]>>;

export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Takes whole lines, each with its line end. */
export interface LogSink {
  write(line: string): void;
  /** Returns when everything written is out. */
  flush(): void;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  /** `pretty` is one line of text per call, for a terminal. */
  readonly format: 'json' | 'pretty';
  readonly clock: Clock;
  /** The standard output if absent. */
  readonly sink?: LogSink;
}

/** A logger that owns its output. Disposing of it, and the end of the process, write out what is still held. */
export interface OwnedLogger extends Logger, Disposable {
  flush(): void;
}

/** Lines are handed on in pieces of about this length. */
const WRITE_LENGTH = 8 * 1024;
/** Beyond this much unwritten text, a reader that does not read loses lines. */
const HELD_BYTES_MAX = 16 * 1024 * 1024;

export function createLogger({ level, format, clock, sink = standardOutput(clock) }: LoggerOptions): OwnedLogger {
  const output = format === 'json' ? sink : { write: (line: string) => sink.write(prettyLine(line)) };
  const log = pino(
    {
      level,
      base: null,
      timestamp: () => `,"time":"${new Date(clock.nowMs()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    output,
  );
  const flush = (): void => sink.flush();
  process.on('exit', flush);
  const write = (at: LogLevel, fields: LogFields, message: string): void => {
    if (log.isLevelEnabled(at)) log[at](withoutSecrets(fields), struckOut(message));
  };
  return {
    debug: (fields, message) => write('debug', fields, message),
    info: (fields, message) => write('info', fields, message),
    warn: (fields, message) => write('warn', fields, message),
    error: (fields, message) => write('error', fields, message),
    flush,
    [Symbol.dispose]() {
      process.off('exit', flush);
      flush();
    },
  };
}

/** The lines of one turn of the event loop leave together, without holding up the caller; at the end they are written at once. */
function standardOutput(clock: Pick<Clock, 'pause'>): LogSink {
  const stream = destination({ fd: 1, sync: false, maxLength: HELD_BYTES_MAX });
  let held = '';
  // A reader that went away is no reason to stop delivering.
  stream.on('error', () => undefined);
  const pass = (): void => {
    if (held !== '') stream.write(held);
    held = '';
  };
  return {
    write(line) {
      if (held === '') void clock.pause().then(pass);
      held += line;
      if (held.length >= WRITE_LENGTH) pass();
    },
    flush() {
      try {
        pass();
        stream.flushSync();
      } catch {
        writeSync(2, 'appservice-router: the last log lines could not be written\n');
      }
    },
  };
}

const SECRET_NAME = /token|authorization|password|secret|cookie/i;
/** A field that is named after a secret and is none. */
const PUBLIC_NAMES: ReadonlySet<string> = new Set(['page_token', 'token_count', 'token_name']);
const SECRET_FORMS: readonly RegExp[] = [/(\bBearer\s+)[^\s"',]+/gi, /(\b(?:access_token|as_token|hs_token)["']?\s*[=:]\s*["']?)[^\s&"',}]+/gi, /(\/\/[^/\s:@]*:)[^/\s@]+(?=@)/g];
/** What every one of these forms has in it; most texts have none of it. */
const SUSPICIOUS = /bearer|_token|:\/\//i;
const STRUCK_OUT = '[redacted]';

/** Strikes out what has the form of a token: a bearer header, a token in a query or in JSON or YAML, a password in a URL. */
export function struckOut(text: string): string {
  if (!SUSPICIOUS.test(text)) return text;
  let clean = text;
  for (const form of SECRET_FORMS) clean = clean.replace(form, `$1${STRUCK_OUT}`);
  return clean;
}

/** Names of fields are few and stand in the code, so each is judged once. */
const judgedNames = new Map<string, boolean>();
const JUDGED_NAMES_MAX = 1_000;

function isSecretName(name: string): boolean {
  const known = judgedNames.get(name);
  if (known !== undefined) return known;
  const isSecret = SECRET_NAME.test(name) && !PUBLIC_NAMES.has(name);
  if (judgedNames.size < JUDGED_NAMES_MAX) judgedNames.set(name, isSecret);
  return isSecret;
}

function withoutSecrets(fields: LogFields): Record<string, unknown> {
  const clean: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    if (isSecretName(name)) clean[name] = STRUCK_OUT;
    else if (typeof value === 'string') clean[name] = struckOut(value);
    else clean[name] = Array.isArray(value) ? value.map((item: string) => struckOut(item)) : value;
  }
  return clean;
}

/** `12:00:00.000 WARN  message  name=value …` from a line of JSON. Control characters stay escaped. */
function prettyLine(line: string): string {
  const parsed: unknown = JSON.parse(line);
  if (typeof parsed !== 'object' || parsed === null) return line;
  const { time = '', level = '', msg = '', ...fields }: Record<string, unknown> = { ...parsed };
  const pairs = Object.entries(fields).map(([name, value]) => `${name}=${typeof value === 'string' && /^[\w.:/@#!+-]+$/.test(value) ? value : JSON.stringify(value)}`);
  const head = `${String(time).slice(11, 23)} ${String(level).toUpperCase().padEnd(5)} ${String(msg)}`;
  return `${[head, ...pairs].join('  ').replace(/[\x00-\x1f\x7f-\x9f]/g, (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`)}\n`;
}
