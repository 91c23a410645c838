/**
 * How a command finds the router and proves who it is. On the machine of an embedded router nothing need be said: address
 * and token are those of its own settings and of the credentials that its first start made.
 *
 *   address   --address, ROUTER_ADDRESS, or grpc_listen of the settings (any address stands for this machine)
 *   token     --token-file, ROUTER_TOKEN_FILE, or the admin token of DATA_DIR/credentials.json
 */
import { join } from 'node:path';
import type { ConfigLoading } from '../config.ts';

export interface ConnectionOptions {
  readonly address?: string | undefined;
  readonly tokenFile?: string | undefined;
}

export interface ConnectionSources {
  readonly options: ConnectionOptions;
  /** ROUTER_ADDRESS and ROUTER_TOKEN_FILE. */
  readonly environment: ConnectionOptions;
  readonly loadConfig: () => ConfigLoading;
  /** The text of a small file; throws. */
  readonly readFile: (path: string) => string;
}

export type Connecting = { readonly kind: 'found'; readonly address: string; readonly token: string } | { readonly kind: 'unknown'; readonly message: string };

const ANY_ADDRESS = /^(?:0\.0\.0\.0|\[::\])(?=:\d+$)/;

export function findConnection({ options, environment, loadConfig, readFile }: ConnectionSources): Connecting {
  const address = options.address ?? environment.address;
  const tokenFile = options.tokenFile ?? environment.tokenFile;
  if (address !== undefined && !/^(?:\[[0-9A-Fa-f:.]+\]|[^\s:/[\]]+):\d{1,5}$/.test(address)) {
    return { kind: 'unknown', message: 'The address of a router is a host and a port, such as 127.0.0.1:50051. Correct --address.' };
  }
  if (address !== undefined && tokenFile !== undefined) return withToken(address, tokenFile, readFile);
  const loading = loadConfig();
  if (loading.kind !== 'ok') {
    const problems = loading.kind === 'invalid' ? loading.problems.join(' ') : '';
    return { kind: 'unknown', message: `The configuration cannot be used to find the router: ${problems} Or name --address and --token-file.` };
  }
  const { config } = loading;
  const found = address ?? config.grpcListen.replace(ANY_ADDRESS, '127.0.0.1');
  if (found.endsWith(':0')) return { kind: 'unknown', message: 'grpc_listen has port 0, so the router has whatever port was free. Name its gRPC address by --address; its "ready" line has it.' };
  return withToken(found, tokenFile ?? join(config.dataDir, 'credentials.json'), readFile);
}

/** A file with the token alone, or one that the router's first start made. */
function withToken(address: string, file: string, readFile: (path: string) => string): Connecting {
  let text: string;
  try {
    text = readFile(file).trim();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason';
    return { kind: 'unknown', message: `The token file ${file} cannot be read (${code}). Name a file that holds a token of an admin credential by --token-file.` };
  }
  const token = text.startsWith('{') ? adminTokenOf(text) : text;
  if (token !== null && /^\S{1,4096}$/.test(token)) return { kind: 'found', address, token };
  return { kind: 'unknown', message: `The file ${file} holds no token. It must be the token alone, or the credentials.json that the router made.` };
}

function adminTokenOf(text: string): string | null {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && 'admin' in parsed && typeof parsed.admin === 'string') return parsed.admin;
  } catch {
    // Nothing of the text is told: it may be a token.
  }
  return null;
}
