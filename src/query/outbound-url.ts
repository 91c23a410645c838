/**
 * The `url` of a registration as the router uses it: where to connect, and what every path begins with (R5).
 */
import type { AddressPolicy } from './address-policy.ts';

export interface OutboundUrl {
  /** `http://host:port` or `https://host:port`; `http://localhost` for a unix socket. */
  readonly origin: string;
  readonly secure: boolean;
  /** Without brackets. Empty for a unix socket. */
  readonly host: string;
  readonly port: number;
  readonly unixPath: string | null;
  /** Path of the url without its last slashes: empty, or it begins with a slash. */
  readonly basePath: string;
}

const UNIX = 'unix:';

/** Null for anything but an http or https URL without user info, query and fragment, or `unix:` and an absolute path. */
export function parseOutboundUrl(text: string): OutboundUrl | null {
  if (text.startsWith(UNIX)) {
    const path = text.slice(UNIX.length).replace(/^\/+/, '/');
    if (!path.startsWith('/') || path.includes('\0')) return null;
    return { origin: 'http://localhost', secure: false, host: '', port: 0, unixPath: path, basePath: '' };
  }
  const url = URL.parse(text);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) return null;
  if (url.username !== '' || url.password !== '' || /[?#]/.test(text)) return null;
  const secure = url.protocol === 'https:';
  return {
    origin: url.origin,
    secure,
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    unixPath: null,
    basePath: url.pathname.replace(/\/+$/, ''),
  };
}

/** Why the router could never push to this `url`, as a sentence for whoever registers it; null if it may. */
export function outboundUrlProblem(text: string, policy: AddressPolicy): string | null {
  const url = parseOutboundUrl(text);
  if (url === null) {
    return 'The url must be an http or https URL without user info, query and fragment, or unix: and an absolute path.';
  }
  return url.unixPath === null ? policy.hostProblem(url.host, url.port) : policy.unixProblem(url.unixPath);
}
