/**
 * The rules of docs/architecture.md that can be read off the sources. Each function gives back the faults, one sentence
 * each; none is the rule kept.
 */
import type { SourceFile } from './source-files.ts';

/** What every room may use. */
const GROUND = ['src/clock.ts', 'src/logger.ts', 'src/folder.ts'];
const DOMAIN = ['src/appservice/'];
const PORT = ['src/store/'];
const ADAPTERS = ['src/store/mongo/', 'src/store/sqlite/'];
const YAML = ['src/nearest-name.ts', 'src/yaml-tree.ts'];
const SECRET_FILE = 'src/secret-file.ts';
/** Interfaces are declared by their consumer, so what implements them looks at these files, from whatever room. */
const DELIVERY_PORTS = 'src/delivery/ports.ts';
const RPC_PORTS = 'src/rpc/ports.ts';
const INGRESS_PORTS = 'src/ingress/ports.ts';

/**
 * Who may import what: of several rooms that hold a file, the one named longest counts. A room may import itself and
 * what stands beside it here; adapters only where they are named. A new room needs a line.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'src/appservice/': [],
  'src/room/': [...DOMAIN, ...PORT],
  'src/store/': [...DOMAIN, ...GROUND],
  'src/store/open.ts': [...PORT, ...ADAPTERS, ...GROUND, 'src/config-schema.ts'],
  'src/store/mongo/': [...DOMAIN, ...PORT, ...GROUND],
  'src/store/sqlite/': [...DOMAIN, ...PORT, ...GROUND],
  'src/ingest/': [...DOMAIN, ...PORT, ...GROUND, 'src/room/', DELIVERY_PORTS],
  'src/delivery/': [...DOMAIN, ...PORT, ...GROUND, 'src/query/'],
  'src/query/': [...DOMAIN, ...PORT, ...GROUND, INGRESS_PORTS],
  'src/registration/': [...DOMAIN, ...PORT, ...GROUND, ...YAML, SECRET_FILE],
  'src/admin/': [...DOMAIN, ...PORT, ...GROUND, 'src/room/', 'src/ingest/', 'src/delivery/', 'src/registration/', 'src/event-feed.ts', RPC_PORTS],
  'src/rpc/': [...DOMAIN, ...PORT, ...GROUND, 'gen/'],
  'src/ingress/': [...DOMAIN, ...PORT, ...GROUND, RPC_PORTS, SECRET_FILE],
  'src/console/': [...DOMAIN, ...GROUND, RPC_PORTS],
  'src/cli/': [...DOMAIN, ...GROUND, ...YAML, 'gen/', 'src/ingress/token-file.ts', 'src/rpc/admin-client.ts', 'src/config.ts', 'src/config-schema.ts', 'src/config-page.ts', 'src/credentials.ts', 'src/registration/', 'src/query/address-policy.ts', 'src/query/outbound-url.ts'],
  'src/clock.ts': [],
  'src/logger.ts': ['src/clock.ts'],
  'src/folder.ts': [],
  'src/secret-file.ts': [],
  'src/nearest-name.ts': [],
  'src/yaml-tree.ts': [],
  'src/escalations.ts': [...DOMAIN, ...GROUND],
  'src/event-feed.ts': [...DOMAIN, ...GROUND],
  'src/telemetry.ts': [...DOMAIN, ...PORT, ...GROUND, 'src/event-feed.ts', DELIVERY_PORTS, INGRESS_PORTS],
  'src/config-schema.ts': [...GROUND, ...YAML, 'src/query/address-policy.ts', 'src/query/outbound-url.ts'],
  'src/config-page.ts': ['src/config-schema.ts'],
  'src/config.ts': [...YAML, 'src/config-schema.ts', 'src/config-page.ts'],
  'src/credentials.ts': [...GROUND, ...YAML],
  'src/ending-signal.ts': GROUND,
  'src/workers.ts': GROUND,
  'src/tail-witness.ts': GROUND,
  'src/homeserver.ts': [...DOMAIN, ...PORT, ...GROUND, 'src/ingest/', 'src/delivery/', RPC_PORTS, INGRESS_PORTS, 'src/submission-parser.ts', 'src/transaction-submission.ts'],
  'src/transaction-submission.ts': [...DOMAIN, 'src/ingest/', INGRESS_PORTS],
  'src/submission-parser.ts': [...DOMAIN, 'src/ingest/', RPC_PORTS],
};
/** The two that put the rooms together. */
const WIRING = ['src/service.ts', 'src/main.ts'];

/** One package, one door: the only files or folders that may import it. Names ending in `/` stand for a scope. */
const DOORS: Readonly<Record<string, readonly string[]>> = {
  mongodb: ['src/store/mongo/'],
  'node:sqlite': ['src/store/sqlite/'],
  re2: ['src/appservice/namespaces.ts'],
  undici: ['src/query/http-client.ts'],
  pino: ['src/logger.ts'],
  'prom-client': ['src/telemetry.ts'],
  yaml: ['src/yaml-tree.ts'],
  commander: ['src/cli/'],
  'cli-table3': ['src/cli/table.ts'],
  'ipaddr.js': ['src/query/address-policy.ts'],
  'node:http2': ['src/rpc/'],
  'node:cluster': ['src/workers.ts'],
  '@grpc/': ['src/rpc/'],
  'grpc-health-check': ['src/rpc/'],
  '@connectrpc/': ['src/rpc/'],
  '@bufbuild/': ['src/rpc/'],
  'node:timers': [],
  'node:timers/promises': [],
};

const FILE_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;
const STORE_PORT_METHODS_MAX = 14;

export function directionFaults(files: readonly SourceFile[]): string[] {
  return files
    .filter((file) => !WIRING.includes(file.path))
    .flatMap((file) => {
      const room = longestPrefix(Object.keys(MAY_IMPORT), file.path);
      if (room === undefined) return [`${file.path} is in a room without a rule: say in house-rules.ts what it may import.`];
      const allowed = [room, ...(MAY_IMPORT[room] ?? [])];
      return file.imports
        .filter((path) => /^(?:src|gen)\//.test(path) && !isAllowed(path, allowed))
        .map((path) => `${file.path} imports ${path}, but ${room} may only import ${allowed.join(', ')}.`);
    });
}

/** An adapter, or the file that chooses one, is not meant by the name of the folder around it. */
function isAllowed(path: string, allowed: readonly string[]): boolean {
  const inner = [...ADAPTERS, 'src/store/open.ts'].find((name) => path.startsWith(name));
  return inner === undefined ? allowed.some((name) => path.startsWith(name)) : allowed.includes(inner);
}

export function doorFaults(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) =>
    file.imports.flatMap((name) => {
      const door = Object.keys(DOORS).find((known) => (known.endsWith('/') ? name.startsWith(known) : name === known || name.startsWith(`${known}/`)));
      const open = door === undefined ? undefined : DOORS[door];
      if (open === undefined || open.some((place) => file.path.startsWith(place))) return [];
      return [`${file.path} imports ${name}, whose only door is ${open.join(', ') || 'src/clock.ts, without a package'}.`];
    }),
  );
}

export function globalFaults(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) =>
    file.globals
      .filter((name) => file.path !== (name === 'process.env' ? 'src/config.ts' : 'src/clock.ts'))
      .map((name) => `${file.path} uses ${name}: ${name === 'process.env' ? 'only src/config.ts reads the environment' : 'take the injected Clock or Random'}.`),
  );
}

export function sizeFaults(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => [
    ...(file.lineCount > FILE_LINES_MAX ? [`${file.path} has ${file.lineCount} lines, more than ${FILE_LINES_MAX}.`] : []),
    ...file.functions
      .filter(({ lineCount }) => lineCount > FUNCTION_LINES_MAX)
      .map(({ name, line, lineCount }) => `${file.path}:${line} ${name} has ${lineCount} lines, more than ${FUNCTION_LINES_MAX}.`),
  ]);
}

export function storePortFaults(files: readonly SourceFile[]): string[] {
  const port = files.find(({ path }) => path === 'src/store/port.ts');
  if (port === undefined) return ['src/store/port.ts is not there.'];
  const count = port.interfaceMethods.length;
  return count > STORE_PORT_METHODS_MAX ? [`The store port has ${count} methods, more than ${STORE_PORT_METHODS_MAX}.`] : [];
}

/** Every circle of imports once, named by its files in the order of the imports. */
export function cycleFaults(files: readonly SourceFile[]): string[] {
  const importsOf = new Map(files.map((file) => [file.path, file.imports]));
  const done = new Set<string>();
  const trail: string[] = [];
  const faults: string[] = [];
  const visit = (path: string): void => {
    const since = trail.indexOf(path);
    if (since !== -1) faults.push(`${[...trail.slice(since), path].join(' → ')} is a cycle.`);
    if (since !== -1 || done.has(path)) return;
    trail.push(path);
    for (const next of importsOf.get(path) ?? []) if (importsOf.has(next)) visit(next);
    trail.pop();
    done.add(path);
  };
  for (const { path } of files) visit(path);
  return faults;
}

function longestPrefix(prefixes: readonly string[], path: string): string | undefined {
  return prefixes.filter((prefix) => path.startsWith(prefix)).sort((a, b) => b.length - a.length)[0];
}
