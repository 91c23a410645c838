/** A real IRC server on a free loopback port, and a person on it. */
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { unusedPort } from '../../test/support/receiver.ts';
import { Program, until } from './program.ts';
import type { SystemProgram } from './software.ts';

const START_TIMEOUT_MS = 20_000;
const WAIT_MS = 60_000;

export interface IrcServer extends AsyncDisposable {
  readonly port: number;
}

export async function startIrcServer({ path, env }: SystemProgram, folder: string): Promise<IrcServer> {
  mkdirSync(folder, { recursive: true });
  const port = await unusedPort();
  const file = join(folder, 'ngircd.conf');
  writeFileSync(
    file,
    `[Global]
Name = irc.test
Info = a server for a test
MotdPhrase = hello
Listen = 127.0.0.1
Ports = ${port}
[Limits]
MaxConnectionsIP = 0
MaxPenaltyTime = 0
MaxJoins = 50
[Options]
DNS = no
Ident = no
PAM = no
`,
  );
  const program = Program.start({ name: 'ngircd', command: path, args: ['--nodaemon', '--config', file], cwd: folder, env, logFile: join(folder, 'ngircd.log') });
  await program.until('accepts connections', START_TIMEOUT_MS, async () => {
    const socket = connect(port, '127.0.0.1');
    const accepted = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    return accepted ? true : null;
  });
  return { port, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
}

export interface IrcMessage {
  readonly from: string;
  readonly target: string;
  readonly text: string;
}

export class IrcPerson implements Disposable {
  readonly messages: IrcMessage[] = [];
  readonly #lines: string[] = [];
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    let held = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      const lines = (held + text).split('\r\n');
      held = lines.pop() ?? '';
      for (const line of lines) this.#line(line);
    });
    socket.on('error', () => undefined);
  }

  /** Connected and in the channel. */
  static async join(port: number, nick: string, channel: string): Promise<IrcPerson> {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    const person = new IrcPerson(socket);
    socket.write(`NICK ${nick}\r\nUSER ${nick} 0 * :${nick}\r\n`);
    await until('the IRC server welcomes', WAIT_MS, () => (person.#lines.some((line) => / 001 /.test(line)) ? true : null));
    socket.write(`JOIN ${channel}\r\n`);
    await until('in the channel', WAIT_MS, () => (person.#lines.some((line) => / 366 /.test(line)) ? true : null));
    return person;
  }

  say(target: string, text: string): void {
    this.#socket.write(`PRIVMSG ${target} :${text}\r\n`);
  }

  async message(text: string): Promise<IrcMessage> {
    return until(`an IRC message with ${text}`, WAIT_MS, () => this.messages.find((message) => message.text.includes(text)) ?? null);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #line(line: string): void {
    this.#lines.push(line);
    if (line.startsWith('PING ')) this.#socket.write(`PONG ${line.slice(5)}\r\n`);
    const [, from, target, text] = /^:([^! ]+)[^ ]* PRIVMSG ([^ ]+) :(.*)$/.exec(line) ?? [];
    if (from !== undefined && target !== undefined && text !== undefined) this.messages.push({ from, target, text });
  }
}
