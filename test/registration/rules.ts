/** The rules as the tests hold registrations to: real ones for patterns and literal addresses. */
import { patternProblem } from '../../src/appservice/namespaces.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { literalAddressProblem } from '../../src/query/address-policy.ts';
import { parseOutboundUrl } from '../../src/query/outbound-url.ts';
import type { RegistrationRules } from '../../src/registration/registration-rules.ts';

export const RULES: RegistrationRules = {
  serverName: 'example.org',
  rateLimitedDefault: true,
  patternProblem,
  urlProblem: (url) => {
    const parsed = parseOutboundUrl(url);
    return parsed === null ? 'The url cannot be used.' : parsed.unixPath === null ? literalAddressProblem(parsed.host) : null;
  },
};

export const YAML = `id: irc
url: http://127.0.0.1:9000
as_token: as-secret-0123456789abcdef
hs_token: hs-secret-0123456789abcdef
sender_localpart: ircbot
rate_limited: false
namespaces:
  users:
    - exclusive: true
      regex: '@irc_.*:example\\.org'
  aliases:
    - exclusive: false
      regex: '#irc_.*:example\\.org'
  rooms: []
`;

export const REGISTRATION: Registration = {
  id: 'irc',
  url: 'http://127.0.0.1:9000',
  as_token: 'as-secret-0123456789abcdef',
  hs_token: 'hs-secret-0123456789abcdef',
  sender_localpart: 'ircbot',
  namespaces: {
    users: [{ regex: '@irc_.*:example\\.org', exclusive: true }],
    aliases: [{ regex: '#irc_.*:example\\.org', exclusive: false }],
    rooms: [],
  },
  protocols: [],
  rate_limited: false,
  receive_ephemeral: false,
  push_ephemeral_unstable: false,
  device_extensions: false,
  delivery_options: {},
};

/** The YAML with the line of one key replaced; an empty text takes it out. */
export function withLine(key: string, text: string): string {
  return YAML.replace(new RegExp(`^${key}:.*\\n`, 'm'), text === '' ? '' : `${text}\n`);
}
