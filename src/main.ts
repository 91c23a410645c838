/**
 * The process: configuration, start, signals, end. The only file that sets the exit code.
 *
 *   0  it was asked to end and has drained          1  the start cannot work, or a bug ended it
 *   2  the configuration or the command is wrong    further codes of other commands: src/cli/program.ts
 *
 * SIGTERM and SIGINT drain; a later one ends at once.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { holdProcess, systemClock, systemRandom } from './clock.ts';
import { clientEnvironment, loadConfig } from './config.ts';
import type { Config } from './config.ts';
import { isLoopbackListen, storeLabel } from './config-schema.ts';
import { loadCredentials } from './credentials.ts';
import type { Credential } from './credentials.ts';
import { endingSignal } from './ending-signal.ts';
import type { IngressTokens } from './ingress/token-file.ts';
import { loadIngressTokens } from './ingress/token-file.ts';
import { createLogger } from './logger.ts';
import type { OwnedLogger } from './logger.ts';
import { loadEncryptionKeys } from './registration/encryption-key.ts';
import { KeyFile } from './registration/key-file.ts';
import { Vault } from './registration/vault.ts';
import { Service } from './service.ts';
import { StoreError } from './store/errors.ts';
import { isWorker, leaveSupervisor, superviseWorkers, tellReady } from './workers.ts';
import { TailWitness } from './tail-witness.ts';
import { openStore } from './store/open.ts';
import { WakeRelay } from './store/wake-relay.ts';

/** A start that cannot work, in a sentence that says what to do. */
class StartError extends Error {
  override readonly name = 'StartError';
}

const EXIT_FAILED = 1;
const EXIT_WRONG = 2;
const INPUT_FD = 0;
const COLUMNS_DEFAULT = 80;

function version(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...flags] = argv;
  if (command !== 'serve') return runCommand(argv.length === 0 ? ['--help'] : argv);
  const loading = loadConfig({ argv: flags, isTerminal: process.stdout.isTTY });
  if (loading.kind === 'help') return print(process.stdout, `Usage: appservice-router serve [--flag value …]\n\nRuns the router.\n\n${loading.text}\n`, 0);
  if (loading.kind === 'invalid') return refuse(loading.problems);
  const { config } = loading;
  if (config.workers > 1 && config.store.kind !== 'mongodb') return refuse(['With SQLite there is one process: ROUTER_WORKERS must be 1, or ROUTER_STORE must name a MongoDB replica set.']);
  using logger = createLogger({ level: config.logLevel, format: config.logFormat, clock: systemClock });
  return await serve(config, logger);
}

/** Every command but serve. */
async function runCommand(argv: readonly string[]): Promise<number> {
  // The libraries of the command line are loaded by who needs them only.
  const { runCommandLine } = await import('./cli/program.ts');
  using _held = holdProcess();
  const interrupt = new AbortController();
  const { address, tokenFile, noColour } = clientEnvironment();
  const interrupted = (): void => interrupt.abort();
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  // A reader that has gone away, as of a pipe into head, is no error.
  process.stdout.on('error', interrupted);
  const terminal = {
    out: (text: string): void => void process.stdout.write(text),
    err: (text: string): void => void process.stderr.write(text),
    isInteractive: process.stdout.isTTY,
    hasColour: process.stdout.isTTY && !noColour,
    columns: process.stdout.columns || COLUMNS_DEFAULT,
  };
  try {
    return await runCommandLine(
      {
        terminal,
        clock: systemClock,
        random: systemRandom,
        signal: interrupt.signal,
        version: version(),
        environment: { address, tokenFile },
        loadConfig: (flags) => loadConfig({ argv: flags, isTerminal: process.stdout.isTTY }),
        readFile: (path) => readFileSync(path === '-' ? INPUT_FD : path, 'utf8'),
        inspectMongo: async (uri) => (await import('./store/mongo/inspect.ts')).inspectMongo(uri, systemClock),
      },
      argv,
    );
  } finally {
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
}

function refuse(problems: readonly string[]): number {
  return print(process.stderr, `The configuration cannot be used:\n${problems.map((problem) => `  ${problem}\n`).join('')}`, EXIT_WRONG);
}

function print(stream: NodeJS.WriteStream, text: string, exitCode: number): number {
  stream.write(text);
  return exitCode;
}

async function serve(config: Config, logger: OwnedLogger): Promise<number> {
  const ending = endingSignal({ source: process, clock: systemClock, endAtOnce: (signal) => endAtOnce(logger, signal) });
  if (config.workers > 1 && !isWorker()) return supervise(config, logger, ending);
  let service: Service;
  try {
    service = await start(config, logger);
  } catch (error) {
    if (error instanceof StartError || error instanceof StoreError) logger.error({ store: storeLabel(config.store) }, error.message);
    else logger.error({ error: error instanceof Error ? error.message : String(error) }, 'the router cannot start');
    return EXIT_FAILED;
  }
  const { grpcAddress, httpAddress, replicaId } = service;
  logger.info({ grpc_address: grpcAddress, http_address: httpAddress, replica_id: replicaId, process_id: process.pid, store: storeLabel(config.store), server_name: config.serverName, version: version() }, isWorker() ? 'worker ready' : 'ready');
  tellReady({ grpcAddress, httpAddress });
  const signal = await ending;
  logger.info({ signal }, 'draining');
  await service[Symbol.asyncDispose]();
  logger.info({}, 'drained');
  return 0;
}

/** The workers find the credentials that are made here, instead of making some each. */
async function supervise(config: Config, logger: OwnedLogger, ending: Promise<string>): Promise<number> {
  try {
    await credentialsOf(config, logger);
  } catch (error) {
    logger.error({}, error instanceof StartError ? error.message : String(error));
    return EXIT_FAILED;
  }
  return superviseWorkers({ count: config.workers, clock: systemClock, logger, ending }, ({ grpcAddress, httpAddress }) => {
    logger.info({ grpc_address: grpcAddress, http_address: httpAddress, workers: config.workers, process_id: process.pid, store: storeLabel(config.store), server_name: config.serverName, version: version() }, 'ready');
  });
}

function endAtOnce(logger: OwnedLogger, signal: string): void {
  logger.warn({ signal }, 'ended before everything was drained');
  logger.flush();
  process.kill(process.pid, 'SIGKILL');
}

async function start(config: Config, logger: OwnedLogger): Promise<Service> {
  const credentials = await credentialsOf(config, logger);
  const { vault, keyFile } = await vaultOf(config, logger);
  const ingress = await ingressOf(config, logger);
  const wakes = new WakeRelay();
  const store = await openStore(config.store, { clock: systemClock, random: systemRandom, logger, wakes });
  const file = config.store.kind === 'memory' ? null : join(config.dataDir, 'log-positions.json');
  const witness = await TailWitness.open({ file, store: storeLabel(config.store), clock: systemClock, logger });
  return Service.start({
    witness,
    settings: {
      serverName: config.serverName,
      grpcListen: config.grpcListen,
      httpListen: config.httpListen,
      credentials,
      registrationPaths: config.registrations,
      rateLimitedDefault: config.rateLimitedDefault,
      pushTimeoutMs: config.pushTimeoutMs,
      queryTimeoutMs: config.queryTimeoutMs,
      queryAttemptsMax: config.queryAttemptsMax,
      pingTimeoutMs: config.pingTimeoutMs,
      escalationWindowMs: config.escalationWindowMs,
      delivery: {
        eventsMax: config.transactionEventsMax,
        ephemeralMax: config.transactionEphemeralMax,
        ephemeralAgeMaxMs: config.ephemeralAgeMaxMs,
        toDeviceMax: config.transactionToDeviceMax,
        bytesMax: config.transactionBytesMax,
        backoff: { firstMs: config.backoffFirstMs, maxMs: config.backoffMaxMs },
      },
      outbound: { mode: config.outboundPolicy, allow: config.outboundAllow },
      logRetentionMs: config.logRetentionMs,
      ingress,
      homeserverUrl: config.homeserverUrl,
      homeserverTimeoutMs: config.homeserverTimeoutMs,
      roomWaitMs: config.roomWaitMs,
    },
    version: version(),
    store,
    wakes,
    isStoreExclusive: config.store.kind !== 'mongodb',
    vault,
    keyFile,
    clock: systemClock,
    random: systemRandom,
    logger,
  });
}

async function credentialsOf(config: Config, logger: OwnedLogger): Promise<readonly Credential[]> {
  const loading = await loadCredentials({
    file: config.credentials,
    dataDir: config.dataDir,
    serverName: config.serverName,
    allLoopback: isLoopbackListen(config.grpcListen) && isLoopbackListen(config.httpListen),
    random: systemRandom,
  });
  if (loading.kind === 'invalid') throw new StartError(loading.problems.join(' '));
  for (const warning of loading.warnings) logger.warn({}, warning);
  if (loading.createdFile !== null) logger.info({ file: loading.createdFile }, 'two credentials were created, one for the homeserver and one for the operator; their tokens are in this file');
  return loading.credentials;
}

async function ingressOf({ ingressTokenFile, homeserverUrl }: Config, logger: OwnedLogger): Promise<IngressTokens | null> {
  if (ingressTokenFile === null && homeserverUrl !== null) logger.warn({}, 'ROUTER_HOMESERVER_URL is of no use without ROUTER_INGRESS_TOKEN_FILE, which names the token for it');
  if (ingressTokenFile === null) return null;
  const loading = await loadIngressTokens(ingressTokenFile);
  if (loading.kind !== 'loaded') throw new StartError(loading.message);
  for (const warning of loading.warnings) logger.warn({}, warning);
  return loading.tokens;
}

async function vaultOf(config: Config, logger: OwnedLogger): Promise<{ vault: Vault; keyFile: KeyFile }> {
  const loading = await loadEncryptionKeys({ path: config.encryptionKeyFile, mayCreate: config.store.kind !== 'mongodb', random: systemRandom });
  if (loading.kind === 'invalid') throw new StartError(loading.message);
  for (const warning of loading.warnings) logger.warn({}, warning);
  if (loading.created) logger.info({ file: config.encryptionKeyFile }, 'an encryption key was created; keep a copy of it in a safe place');
  const keyFile = new KeyFile({ path: config.encryptionKeyFile, random: systemRandom, keys: loading.keys });
  return { vault: new Vault(loading.keys, systemRandom, () => keyFile.reread()), keyFile };
}

process.exitCode = await main(process.argv.slice(2));
leaveSupervisor();
