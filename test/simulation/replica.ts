/**
 * One router process under simulation: the parts that ship, wired as service.ts wires them, on a clock, a store and a
 * network that belong to the simulation. What is left out are the doors, the metrics and the files.
 */
import { Quarantine } from '../../src/admin/quarantine.ts';
import { Registrar } from '../../src/admin/registrar.ts';
import { Delivery } from '../../src/delivery/delivery.ts';
import { Pacer, PACER_DEFAULTS } from '../../src/delivery/pacer.ts';
import { HttpPush } from '../../src/delivery/push.ts';
import { ReplicaPresence } from '../../src/delivery/replica-presence.ts';
import { Homeserver } from '../../src/homeserver.ts';
import type { HomeserverOptions } from '../../src/homeserver.ts';
import type { LogFields, Logger } from '../../src/logger.ts';
import { Provisioning, PROVISIONING_LIMITS } from '../../src/query/provisioning.ts';
import { UnknownUsers } from '../../src/query/unknown-users.ts';
import type { Chance } from './chance.ts';
import type { History } from './history.ts';
import { HttpLink } from './http-link.ts';
import type { HttpLinkOptions } from './http-link.ts';
import { PLAIN_VAULT, registrationFrom, SERVER } from './registrations.ts';
import type { RouterProcess } from './router-process.ts';
import type { SimulationSettings } from './settings.ts';
import type { StoreChange } from './sim-store.ts';
import { StoreLink } from './store-link.ts';
import type { StoreLinkOptions } from './store-link.ts';

export interface ReplicaOptions extends Pick<StoreLinkOptions, 'store' | 'weather' | 'isExclusive' | 'diesAt'>, Pick<HttpLinkOptions, 'appservices'> {
  readonly process: RouterProcess;
  readonly chance: Chance;
  readonly history: History;
  readonly settings: SimulationSettings;
}

const RETRY_AFTER_MS_MAX = 600_000;
const PUSH_TIMEOUT_MS = 60_000;
const QUERY_TIMEOUT_MS = 5_000;
const REGISTRATIONS_MAX = 1_000;

export class Replica {
  readonly process: RouterProcess;
  readonly homeserver: Homeserver;
  readonly registrar: Registrar;
  readonly quarantine: Quarantine;
  readonly presence: ReplicaPresence;
  readonly #provisioning: Provisioning;

  private constructor(process: RouterProcess, presence: ReplicaPresence, provisioning: Provisioning, homeserver: Homeserver, link: StoreLink) {
    const { delivery, ledger, isRedelivered } = homeserver;
    this.process = process;
    this.presence = presence;
    this.homeserver = homeserver;
    this.#provisioning = provisioning;
    this.registrar = new Registrar({ serverName: SERVER, registrations: () => homeserver.registrations, ledger, vault: PLAIN_VAULT, registrationsMax: REGISTRATIONS_MAX });
    this.quarantine = new Quarantine({ serverName: SERVER, store: link, commands: delivery.commands, log: ledger, isRedelivered });
  }

  /** Rejects with a StoreError: then the process ends. */
  static async start({ process, chance, history, settings, ...world }: ReplicaOptions): Promise<Replica> {
    const { clock, name } = process;
    const random = chance.fork(name);
    const logger = loggerOf(history, name);
    const link = new StoreLink({ ...world, process, history, chance: chance.fork(`${name} store`) });
    const presence = new ReplicaPresence({ store: link, clock, random, logger, isExclusive: world.isExclusive, ...settings.presence });
    link.replicaId = presence.replicaId;
    await presence.start();
    const client = new HttpLink({ ...world, process, history, link, chance: chance.fork(`${name} network`) });
    const push = new HttpPush({ client, clock, pushTimeoutMs: PUSH_TIMEOUT_MS, retryAfterMsMax: RETRY_AFTER_MS_MAX });
    const pacer = new Pacer(clock, () => 0, PACER_DEFAULTS);
    const events = { emit: () => undefined };
    const provisioning = new Provisioning({ client, clock, random, logger, events, queryTimeoutMs: QUERY_TIMEOUT_MS, attemptsMax: 3, ...PROVISIONING_LIMITS });
    const homeserver = await Homeserver.start({
      ...NOT_ASKED,
      serverName: SERVER,
      store: link,
      open: (_name, _appserviceId, stored) => registrationFrom(stored),
      tokenHash: (token) => PLAIN_VAULT.tokenHash(token),
      query: (serverName, subject, candidates) => provisioning.query(serverName, subject, candidates),
      unknownUsers: (rooms) => new UnknownUsers({ ...rooms, serverName: SERVER, clock, logger, meter: { asked: () => undefined }, limits: settings.unknownUsers }),
      meter: { group: () => undefined, submitted: () => undefined, unasked: () => undefined },
      clock,
      random,
      logger,
      limits: settings.homeserver,
      delivery: (routes, registrations) => new Delivery({ serverName: SERVER, store: link, routes, registrations, push, clock, random, logger, meter: SILENT_METER, events, presence, pacer, settings: settings.delivery }),
    });
    return new Replica(process, presence, provisioning, homeserver, link);
  }

  /** What the store tells, wired as in service.ts. */
  hear(change: StoreChange): void {
    const { ledger, delivery } = this.homeserver;
    if (!this.presence.isShared) return;
    if (change.kind === 'appended') ledger.appendedElsewhere(change.firstPosition);
    else if (change.kind === 'lease') delivery.leaseChanged(change.appserviceId, change.holder);
    else this.presence.look();
  }

  /** As SIGTERM: what is under way is finished, then everything is given back. */
  async end(): Promise<void> {
    await this.homeserver[Symbol.asyncDispose]();
    await this.#provisioning[Symbol.asyncDispose]();
    await this.presence[Symbol.asyncDispose]();
  }
}

const SILENT_METER = { attempt: () => undefined, delivered: () => undefined, leftOut: () => undefined };

function notAsked(): Promise<never> {
  return Promise.reject(new Error('nobody asks this in the simulation'));
}

const NOT_ASKED: Pick<HomeserverOptions, 'ping' | 'thirdParty' | 'keys'> = {
  ping: notAsked,
  thirdParty: { protocols: notAsked, lookUp: notAsked },
  keys: { claim: notAsked, query: notAsked },
};

function loggerOf(history: History, name: string): Logger {
  const traced = (fields: LogFields, message: string): void => {
    if (history.trace !== null) history.trace.push({ timeMs: history.nowMs, kind: 'log', subject: name, detail: `${message} ${JSON.stringify(fields)}` });
  };
  return {
    debug: () => undefined,
    info: traced,
    warn: (fields, message) => {
      traced(fields, message);
      if (fields.kind === 'internal') history.breach(`no bugs: ${name}: ${message}: ${String(fields.error)}`, [name]);
    },
    error: (fields, message) => {
      traced(fields, message);
      if (fields.kind === 'internal') history.breach(`no bugs: ${name}: ${message}: ${String(fields.error)}`, [name]);
    },
  };
}
