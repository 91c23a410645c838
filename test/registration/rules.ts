/** The rules that the tests hold registrations to: the real ones for patterns and addresses. */
import { patternProblem } from '../../src/appservice/namespaces.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { createAddressPolicy } from '../../src/query/address-policy.ts';
import { outboundUrlProblem } from '../../src/query/outbound-url.ts';
import type { RegistrationRules } from '../../src/registration/registration-rules.ts';

const POLICY = createAddressPolicy({ mode: 'default', allow: [], ownListeners: () => [], localAddresses: () => [] });

export const RULES: RegistrationRules = {
  serverName: 'example.org',
  rateLimitedDefault: true,
  patternProblem,
  urlProblem: (url) => outboundUrlProblem(url, POLICY),
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
