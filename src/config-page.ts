/**
 * The settings for people and programs, all from the one schema: the help text, docs/configuration.md, a JSON Schema.
 */
import { jsonProperties, SETTINGS } from './config-schema.ts';
import type { Setting } from './config-schema.ts';

/** One flag a line, with what it takes, its default and its environment name. */
export function settingsHelp(): string {
  const entries = [
    { flag: '--config FILE', text: 'YAML file of settings, by their names without ROUTER_ in lower case. Environment and flags go first.' },
    ...SETTINGS.map((setting) => ({ flag: `${setting.flag} ${placeholder(setting)}`, text: `${setting.description} [${setting.defaultText}] ${setting.environmentName}` })),
    { flag: '--help', text: 'Shows this.' },
  ];
  return `Settings, with [default] and environment name:\n${entries.map(({ flag, text }) => `  ${flag}\n${wrapped(text, 8)}`).join('\n')}\n`;
}

/** The text of docs/configuration.md. */
export function configurationPage(): string {
  const rows = SETTINGS.map(
    (setting) => `| \`${setting.environmentName}\` | \`${setting.flag}\` | ${takes(setting)} | ${cell(`\`${setting.defaultText}\``)} | ${cell(setting.description)} |`,
  );
  return `${[
    '# Configuration',
    '',
    'Generated from `src/config-schema.ts`; a test says when it is not current.',
    '',
    'A setting comes from its default, the YAML file of `--config`, the environment or a flag; the last of these that names it wins. In YAML its name is that of the',
    'environment without `ROUTER_`, in lower case: `push_timeout_ms: 30000`. Lists are separated by commas in the environment and in flags. An empty environment variable',
    'counts as none. Unknown keys and flags are refused with the nearest known name, and so are environment names that are nearly right. All problems are told at once.',
    'Relative paths start at the working directory.',
    '',
    '| environment | flag | takes | default | meaning |',
    '|---|---|---|---|---|',
    ...rows,
    '',
    ...FILES,
  ].join('\n')}\n`;
}

/** Draft 2020-12, for editors of the YAML file. */
export function configJsonSchema(): Readonly<Record<string, unknown>> {
  const properties = jsonProperties();
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'AppserviceRouter settings',
    type: 'object',
    properties: Object.fromEntries(
      SETTINGS.map(({ key, yamlName }) => {
        const { shown: _, ...property }: Record<string, unknown> = { ...properties[key] };
        return [yamlName, property];
      }),
    ),
    additionalProperties: false,
  };
}

const FILES: readonly string[] = [
  '## Credentials',
  'Callers send `authorization: Bearer TOKEN`. The file of `ROUTER_CREDENTIALS` holds hashes of the tokens, never the tokens:',
  '```yaml',
  '- name: synapse',
  '  role: homeserver          # submits events; bound to one server name',
  '  server_name: example.org  # ROUTER_SERVER_NAME if left out',
  '  token_sha256: <64 digits of lower-case hex>',
  '- name: operator',
  '  role: admin               # or monitor, which only reads',
  '  token_sha256: <64 digits of lower-case hex>',
  '```',
  'A token and its hash: `TOKEN=$(openssl rand -hex 32); echo $TOKEN; printf %s "$TOKEN" | sha256sum`.',
  '',
  'Without that file and with both listeners on loopback, the first start makes one homeserver and one admin credential and writes their tokens to `credentials.json` in the',
  'data directory, readable by its owner alone; later starts use them again. With a listener that other machines reach, the router refuses to start without credentials.',
  '',
  '## Encryption key',
  'The tokens of registrations are sealed in the store with AES-256-GCM. The key file is text: a line holds a key of 32 bytes in base64 or hex (`openssl rand -base64 32`).',
  'The first key seals, it and the others open; the line `lookup KEY` names the key by which tokens are found, without it that is the last one. Lines that begin with `#` do',
  'not count. Others than its owner must not be able to write the file and should not be able to read it. Keep a copy: without the key, stored registrations cannot be read.',
  '',
  'To change the key with several routers: write the new key second on all of them, with the old one as `lookup`; then first on all of them. The old one may go when',
  'nothing sealed with it is left.',
  '',
  '## Ingress',
  'The file of `ROUTER_INGRESS_TOKEN_FILE` holds the two tokens of the catch-all registration, as `appservice-router synapse-setup` writes it:',
  '```json',
  '{"hs_token": "what the homeserver shows to the router", "as_token": "what the router shows to the homeserver", "server_name": "example.org"}',
  '```',
  'Both are 16 to 1,024 printable characters. Without `server_name` it is that of `ROUTER_SERVER_NAME`. Others than its owner must not be able to write the file and should',
  'not be able to read it: with the as_token one can act as any user of the homeserver.',
  '',
  '## Registration files',
  '`ROUTER_REGISTRATIONS` names directories, of which the `*.yaml` and `*.yml` are read, or single files. They are those that appservices ship, and may have a mapping of',
  'their own for this router:',
  '```yaml',
  'appservice_router:',
  '  legacy_paths: off        # unrecognized, any_error',
  '  legacy_auth: off         # both, query_only',
  '  push_timeout_ms: 60000',
  '  query_timeout_ms: 5000',
  '  proxy: http://proxy.example:3128',
  '  ca_file: /etc/ssl/own-ca.pem',
  '```',
  '`legacy_auth` says where the hs_token stands: in the header, in header and query, or in the query alone, where logs of others may keep it.',
  '',
  '`legacy_paths` says when an appservice is asked by the paths from before version 1, `/transactions`, `/users`, `/rooms` and `/_matrix/app/unstable/thirdparty`. The path of',
  'version 1 is always tried first. With `unrecognized` the other follows, in the same attempt, on 404 or 405 with `M_UNRECOGNIZED`, an empty body or one that is no JSON, and',
  'on 400 with `M_UNRECOGNIZED`; with `any_error` on every answer but 2xx. What was no answer is never followed by it, and pings and keys have no such path. A path that took a',
  'request goes first for an hour, until it fails, or until the registration is put again.',
  '',
  '`push_timeout_ms` and `query_timeout_ms` are for one attempt, both paths included; without them `ROUTER_PUSH_TIMEOUT_MS` and `ROUTER_QUERY_TIMEOUT_MS` hold. `proxy` is an',
  'http URL of host and port: an https appservice is reached through a tunnel (CONNECT), and the requests to an http one are handed to the proxy whole, so that what the proxy',
  'itself answers to them counts as the word of the appservice, 407 excepted. `ca_file` is a plain PEM file of at most a mebibyte; its authorities replace those of the system,',
  'and it is read anew for each connection.',
  '',
  'A file acts when it changes. One that cannot be applied changes nothing and is reported with file, line and field. Of two files with one id or one as_token neither is',
  'applied. When a file goes, its registration is removed and its backlog parked; if it comes back with the same as_token while the router runs, the backlog goes on. A',
  'directory that is empty or cannot be read removes nothing. Registrations put by PutRegistration are never removed for want of a file.',
  '',
  '## Outbound addresses',
  'Every address is judged when a connection is opened, after the name is resolved, and the connection goes to what was judged. Unspecified, link-local, multicast, broadcast',
  "and reserved addresses, those of cloud metadata services, port 0 and the router's own listeners are refused whatever is listed, in IPv6 forms that carry them too.",
  '`ROUTER_OUTBOUND_POLICY=default` lets everything else pass. `strict` lets public addresses pass, and of private ones and unix sockets what `ROUTER_OUTBOUND_ALLOW` lists:',
  '`10.1.0.0/16`, `192.168.0.7`, `irc.internal` (wherever that name leads, but for what is always refused), `unix:/run/appservice.sock`. Behind a `proxy` it is the address of the',
  'proxy that is judged, and of the appservice only one that its url spells out: the rest is the duty of the proxy.',
];

function placeholder({ kind, choices }: Setting): string {
  if (choices.length > 0) return choices.join('|');
  return { text: 'TEXT', integer: 'NUMBER', boolean: 'true|false', list: 'A,B,…' }[kind];
}

function takes({ kind, choices, min, max }: Setting): string {
  if (choices.length > 0) return choices.map((choice) => `\`${choice}\``).join(', ');
  if (kind === 'integer') return `${min} to ${max}`;
  return { text: 'text', boolean: '`true`, `false`', list: 'list' }[kind];
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

const LINE_LENGTH_MAX = 110;

function wrapped(text: string, indent: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > LINE_LENGTH_MAX) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line].map((one) => ' '.repeat(indent) + one).join('\n');
}
