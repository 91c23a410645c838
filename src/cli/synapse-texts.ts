/** The texts that synapse-setup writes: the catch-all registration, copies with `url: null`, and lines for homeserver.yaml. */
import type { Registration } from '../appservice/registration.ts';
import { plainFromYaml, readYaml } from '../yaml-tree.ts';
import type { YamlMap } from '../yaml-tree.ts';

export interface CatchAll {
  readonly id: string;
  /** Where the homeserver reaches the router's HTTP port. */
  readonly url: string;
  readonly asToken: string;
  readonly hsToken: string;
}

/** Covers every user, alias and room, none exclusively, so that it takes nothing from anybody. */
export function catchAllYaml({ id, url, asToken, hsToken }: CatchAll, registrations: readonly Registration[]): string {
  const protocols = [...new Set(registrations.flatMap((registration) => registration.protocols))];
  const everything = (sigil: string): string => `    - {exclusive: false, regex: '${sigil}.*'}\n`;
  return `# The router, as the one appservice to which the homeserver sends everything. Written by appservice-router synapse-setup.
# With the as_token one can act as any user of the homeserver: keep this file from all but the homeserver.
id: ${JSON.stringify(id)}
url: ${JSON.stringify(url)}
as_token: ${JSON.stringify(asToken)}
hs_token: ${JSON.stringify(hsToken)}
sender_localpart: ${JSON.stringify(id)}
rate_limited: false
receive_ephemeral: true
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
namespaces:
  users:
${everything('@')}  aliases:
${everything('#')}  rooms:
${everything('!')}protocols: ${JSON.stringify(protocols)}
`;
}

/**
 * The same registration with `url: null`, so that the homeserver knows its tokens and namespaces and sends it nothing. What
 * else stands in the text is left as it is, where that can be done safely; otherwise the same is written as JSON, which is
 * YAML too.
 */
export function withoutUrl(text: string): string {
  const root = mapOf(text);
  const key = root.entries.get('url')?.key;
  const wanted = JSON.stringify({ ...plainMap(root), url: null });
  if (key !== undefined) {
    const lines = text.split('\n');
    const line = lines[key.line - 1] ?? '';
    lines[key.line - 1] = line.replace(/^(\s*(?:"url"|'url'|url)\s*:).*$/, '$1 null');
    const edited = lines.join('\n');
    const reading = readYaml(edited);
    if (reading.kind === 'tree' && reading.root.kind === 'map' && JSON.stringify({ ...plainMap(reading.root) }) === wanted) return edited;
  }
  return `${JSON.stringify({ ...plainMap(root), url: null }, null, 2)}\n`;
}

export function homeserverYaml(paths: readonly string[], registrations: readonly Registration[]): string {
  const wantsDevices = registrations.some(({ device_extensions: wants }) => wants);
  const hash = wantsDevices ? '' : '# ';
  return `# Lines for homeserver.yaml. If it has app_service_config_files already, put these in the place of the files listed there.
app_service_config_files:
${paths.map((path) => `  - ${JSON.stringify(path)}\n`).join('')}
# ${wantsDevices ? 'An appservice' : 'Only if an appservice'} takes part in encrypted rooms (org.matrix.msc3202 in its registration). If there is an
# experimental_features section already, add to it.
${hash}experimental_features:
${hash}  msc2409_to_device_messages_enabled: true
${hash}  msc3202_device_masquerading: true
${hash}  msc3202_transaction_extensions: true
`;
}

function mapOf(text: string): YamlMap {
  const reading = readYaml(text);
  if (reading.kind !== 'tree' || reading.root.kind !== 'map') throw new Error('a registration that was read before is no mapping');
  return reading.root;
}

function plainMap(root: YamlMap): object {
  const plain: unknown = plainFromYaml(root);
  if (typeof plain !== 'object' || plain === null) throw new Error('a mapping is no object');
  return plain;
}
