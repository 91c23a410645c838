/**
 * A forward proxy, and the way through it: one CONNECT (RFC 9110 section 9.3.6), after which the connection is the appservice's.
 */
import type { Socket } from 'node:net';

export interface ProxyUrl {
  readonly host: string;
  readonly port: number;
  /** The Authorization for the proxy, if its URL names a user. */
  readonly authorization: string | null;
}

const ANSWER_BYTES_MAX = 16 * 1024;

/** Null for anything but `http://[user:password@]host[:port]`. */
export function parseProxyUrl(text: string): ProxyUrl | null {
  const url = URL.parse(text);
  if (url === null || url.protocol !== 'http:' || url.pathname !== '/' || url.search !== '' || url.hash !== '') return null;
  const user = `${decoded(url.username)}:${decoded(url.password)}`;
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? 80 : Number(url.port),
    authorization: user === ':' ? null : `Basic ${Buffer.from(user).toString('base64')}`,
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Resolves to the status with which the proxy answered; on a 2xx the socket has become the way to `authority`. Rejects if `signal` aborts or the proxy hangs up. */
export function openTunnel(socket: Socket, authority: string, { authorization }: ProxyUrl, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    let held = Buffer.alloc(0);
    const done = (): void => {
      socket.off('readable', read);
      socket.off('close', fail);
      socket.off('end', fail);
      signal.removeEventListener('abort', fail);
    };
    const fail = (): void => {
      done();
      socket.destroy();
      reject(new Error('the proxy gave no answer'));
    };
    const read = (): void => {
      for (let piece: unknown = socket.read(); Buffer.isBuffer(piece); piece = socket.read()) held = Buffer.concat([held, piece]);
      const headEnd = held.indexOf('\r\n\r\n');
      if (headEnd === -1) {
        if (held.byteLength > ANSWER_BYTES_MAX) fail();
        return;
      }
      const status = Number(/^HTTP\/1\.[01] (\d{3})\b/.exec(held.toString('latin1', 0, 64))?.[1] ?? 0);
      done();
      if (status < 200 || status > 299) socket.destroy();
      // What follows the head is the peer's already.
      else if (held.byteLength > headEnd + 4) socket.unshift(held.subarray(headEnd + 4));
      resolve(status);
    };
    if (signal.aborted) return fail();
    signal.addEventListener('abort', fail, { once: true });
    socket.on('close', fail);
    socket.on('end', fail);
    socket.on('readable', read);
    const proof = authorization === null ? '' : `proxy-authorization: ${authorization}\r\n`;
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nhost: ${authority}\r\n${proof}\r\n`);
  });
}
