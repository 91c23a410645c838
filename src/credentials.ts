/**
 * Who may call: the file of ROUTER_CREDENTIALS, or on loopback two credentials made at the first start.
 *
 *   file named ──▶ its credentials
 *   none, all listeners on loopback ──▶ DATA_DIR/credentials.json: read, or created with mode 0600
 *   none, a listener that others reach ──▶ refused
 *
 * No problem quotes a token or a hash.
 */
import { createHash } from 'node:crypto';
import { link, open, readFile, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { Random } from './clock.ts';
import { makeFolder } from './folder.ts';
import { plainFromYaml, readYaml, YAML_BYTES_MAX } from './yaml-tree.ts';
import type { YamlNode } from './yaml-tree.ts';

export interface Credential {
  readonly name: string;
  readonly role: 'homeserver' | 'admin' | 'monitor';
  /** The homeserver it is bound to; null for one that is not bound, which a `homeserver` never is. */
  readonly serverName: string | null;
  /** Lower-case hex. */
  readonly tokenSha256: string;
}

export type CredentialsLoading =
  | {
      readonly kind: 'loaded';
      readonly credentials: readonly Credential[];
      /** The file that holds tokens in the clear, if this start created it. */
      readonly createdFile: string | null;
      readonly warnings: readonly string[];
    }
  /** At least one sentence. */
  | { readonly kind: 'invalid'; readonly problems: readonly string[] };

export interface CredentialsSource {
  /** The file of ROUTER_CREDENTIALS; null for none. */
  readonly file: string | null;
  readonly dataDir: string;
  /** For credentials of role `homeserver` that name none. */
  readonly serverName: string;
  /** True if only this machine can reach the listeners. */
  readonly allLoopback: boolean;
  readonly random: Pick<Random, 'hex'>;
}

const TOKEN_BYTES = 32;
const CREDENTIALS_MAX = 1_000;
const HASH_EXAMPLE = 'printf %s "$TOKEN" | sha256sum prints one';

const credentialSchema = z.strictObject(
  {
    name: z.string('name must be a string').regex(/^[\w.@:-]{1,100}$/, 'name must have 1 to 100 letters, digits or . _ @ : -'),
    role: z.enum(['homeserver', 'admin', 'monitor'], 'role must be homeserver, admin or monitor'),
    server_name: z.string('server_name must be a string').min(1, 'server_name must not be empty').optional(),
    token_sha256: z.string(`token_sha256 must be a string; quote it. ${HASH_EXAMPLE}`).regex(/^[0-9a-f]{64}$/, `token_sha256 must be 64 digits of lower-case hex; ${HASH_EXAMPLE}`),
  },
  { error: ({ code }) => (code === 'unrecognized_keys' ? 'only name, role, server_name and token_sha256 are known' : 'a credential is a mapping of name, role, server_name and token_sha256') },
);

const createdSchema = z.object({ homeserver: z.string().min(32), admin: z.string().min(32) });

/** Never rejects for what an operator can mend. */
export async function loadCredentials(source: CredentialsSource): Promise<CredentialsLoading> {
  if (source.file !== null) return loadFile(source.file, source.serverName);
  if (!source.allLoopback) {
    const problem =
      'A listener can be reached from other machines and there are no credentials. Name a file by ROUTER_CREDENTIALS ' +
      '(a YAML list of {name, role, server_name, token_sha256}), or listen on 127.0.0.1 alone.';
    return { kind: 'invalid', problems: [problem] };
  }
  return loadCreated(join(source.dataDir, 'credentials.json'), source);
}

async function loadFile(file: string, serverName: string): Promise<CredentialsLoading> {
  let text: string;
  try {
    const { size } = await stat(file);
    if (size > YAML_BYTES_MAX) return { kind: 'invalid', problems: [`The credentials file ${file} has ${size} bytes; at most ${YAML_BYTES_MAX} are read.`] };
    text = await readFile(file, 'utf8');
  } catch (error) {
    return { kind: 'invalid', problems: [`The credentials file ${file} cannot be read (${codeOf(error)}). Check ROUTER_CREDENTIALS.`] };
  }
  const reading = readYaml(text);
  if (reading.kind === 'broken') return { kind: 'invalid', problems: reading.problems.map(({ line, column, message }) => `${file}, line ${line}, column ${column}: ${message}`) };
  const credentials = credentialsFrom(reading.root, serverName);
  if (credentials.problems.length > 0) return { kind: 'invalid', problems: credentials.problems.map((problem) => `${file}, ${problem}`) };
  return { kind: 'loaded', credentials: credentials.read, createdFile: null, warnings: [] };
}

function credentialsFrom(root: YamlNode, serverName: string): { read: Credential[]; problems: string[] } {
  const read: Credential[] = [];
  const problems: string[] = [];
  if (root.kind !== 'list' || root.items.length === 0 || root.items.length > CREDENTIALS_MAX) {
    return { read, problems: [`line ${root.line}: Credentials are a list of 1 to ${CREDENTIALS_MAX} entries; begin each with "- name: …".`] };
  }
  const lines = { names: new Map<string, number>(), hashes: new Map<string, number>() };
  for (const item of root.items) {
    const entry = credentialSchema.safeParse(plainFromYaml(item));
    if (!entry.success) {
      problems.push(...entry.error.issues.map(({ message }) => `line ${item.line}: ${message}.`));
      continue;
    }
    const { name, role, server_name, token_sha256: tokenSha256 } = entry.data;
    const [sameName, sameHash] = [lines.names.get(name), lines.hashes.get(tokenSha256)];
    if (sameName !== undefined) problems.push(`line ${item.line}: the name is that of the entry of line ${sameName} too; give each its own.`);
    if (sameHash !== undefined) problems.push(`line ${item.line}: the token is that of the entry of line ${sameHash} too; give each its own.`);
    lines.names.set(name, item.line);
    lines.hashes.set(tokenSha256, item.line);
    read.push({ name, role, serverName: server_name ?? (role === 'homeserver' ? serverName : null), tokenSha256 });
  }
  return { read, problems };
}

async function loadCreated(file: string, source: CredentialsSource): Promise<CredentialsLoading> {
  let createdFile: string | null = null;
  try {
    if (await isMissing(file)) createdFile = (await create(file, source.random)) ? file : null;
    const { mode } = await stat(file);
    const tokens = createdSchema.safeParse(parsed(await readFile(file, 'utf8')));
    if (!tokens.success) return { kind: 'invalid', problems: [`The file ${file} does not hold the credentials that were written to it. Delete it to have new ones made at the next start.`] };
    const { homeserver, admin } = tokens.data;
    const credentials: Credential[] = [
      { name: 'homeserver', role: 'homeserver', serverName: source.serverName, tokenSha256: sha256(homeserver) },
      { name: 'admin', role: 'admin', serverName: null, tokenSha256: sha256(admin) },
    ];
    const warnings = (mode & 0o077) === 0 ? [] : [`Others than its owner can open ${file}, which holds tokens. Run: chmod 600 ${file}`];
    return { kind: 'loaded', credentials, createdFile, warnings };
  } catch (error) {
    return { kind: 'invalid', problems: [`The credentials file ${file} cannot be ${createdFile === null ? 'created or read' : 'read'} (${codeOf(error)}). Let this process use its directory, or name a file by ROUTER_CREDENTIALS.`] };
  }
}

async function isMissing(file: string): Promise<boolean> {
  try {
    await stat(file);
    return false;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return true;
    throw error;
  }
}

/** False if another process was faster; its file counts. */
async function create(file: string, random: Pick<Random, 'hex'>): Promise<boolean> {
  const draft = `${file}.${random.hex(8)}.new`;
  let handle: FileHandle | null = null;
  try {
    makeFolder(dirname(file));
    handle = await open(draft, 'wx', 0o600);
    await handle.writeFile(`${JSON.stringify({ homeserver: random.hex(TOKEN_BYTES), admin: random.hex(TOKEN_BYTES) }, null, 2)}\n`);
    await handle.sync();
    await link(draft, file);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await handle?.close();
    await rm(draft, { force: true });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function sha256(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason';
}
