/**
 * What operators do: registrations come, change and go; deliveries are paused, resumed, hurried, skipped, stopped,
 * replayed, taken from the quarantine. Each on whatever router, while anything is on its way. At the end they set
 * everything right, as often as it takes.
 */
import { RefusalError } from '../../src/appservice/refusal.ts';
import { StoreError } from '../../src/store/errors.ts';
import type { AppserviceState } from '../../src/store/port.ts';
import type { Chance } from './chance.ts';
import type { History } from './history.ts';
import type { Kernel } from './kernel.ts';
import { APPSERVICE_IDS, PLAIN_VAULT, registrationOf, SERVER, VARIANT_COUNT } from './registrations.ts';
import type { Replica } from './replica.ts';
import type { SimStore } from './sim-store.ts';

export interface OperatorsOptions {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly history: History;
  readonly store: SimStore;
  readonly replica: () => Replica | undefined;
}

type Action = 'put' | 'remove' | 'pause' | 'resume' | 'retry' | 'skip' | 'stop' | 'replay' | 'redeliver' | 'discard' | 'look';

const ACTIONS: readonly (readonly [Action, number])[] = [
  ['put', 6],
  ['remove', 2],
  ['pause', 4],
  ['resume', 5],
  ['retry', 3],
  ['skip', 3],
  ['stop', 0.5],
  ['replay', 2],
  ['redeliver', 3],
  ['discard', 1],
  ['look', 3],
];

/** A registration that is said to be in force. */
class PutRegistration {
  readonly json: string;

  constructor(json: string) {
    this.json = json;
  }
}

export class Operators {
  readonly #options: OperatorsOptions;

  constructor(options: OperatorsOptions) {
    this.#options = options;
  }

  /** Puts all registrations, each as it usually is; tries until it is done. */
  begin(): void {
    const changes = APPSERVICE_IDS.map((id) => ({ kind: 'put', appserviceId: id, registration: PLAIN_VAULT.seal(SERVER, registrationOf(id, 0), 'api'), resumeParked: false }) as const);
    this.#insist('put all', (replica) => replica.homeserver.ledger.changeRegistrations(() => changes));
  }

  /** Something, to one of these appservices; sometimes more than one thing, since operators correct themselves. */
  act(appserviceIds: readonly string[]): void {
    const { kernel, chance } = this.#options;
    const id = chance.pick(appserviceIds);
    const action = chance.weighted(ACTIONS);
    this.#actOn(id, action);
    // Two operators want the same at once.
    if (action === 'redeliver') kernel.after(chance.between(0, 100), () => this.#actOn(id, action));
    else if (chance.is(0.4)) kernel.after(chance.between(0, 6_000), () => this.#actOn(id, chance.weighted(ACTIONS)));
  }

  #actOn(id: string, action: Action): void {
    const { history, replica: some } = this.#options;
    const replica = some();
    if (replica === undefined) return;
    if (action === 'put' || action === 'remove') history.reregistered.add(id);
    history.note('operator', id, `${action} at ${replica.process.name}`);
    const asked = history.next();
    replica.process.arrives(() => {
      this.#do(action, id, replica).then(
        (result) => {
          history.note('done', id, action);
          if (result instanceof PutRegistration) this.#isInForce(id, result, asked);
        },
        (error: unknown) => this.#judge(error, action, id),
      );
    });
  }

  /** Everything is to be delivered: what is paused is resumed, what was removed or stopped begins anew. */
  setRight(): void {
    for (const id of APPSERVICE_IDS) {
      this.#insist(`set right ${id}`, async (replica) => {
        if (this.#options.store.states.get(id)?.deliveryState === 'failed' && replica.homeserver.registrations.get(id)?.registration !== null) await replica.registrar.remove(id, 'discard');
        await replica.registrar.put(registrationOf(id, 0), 'api', true);
        await replica.homeserver.delivery.setPaused(id, false);
      });
    }
  }

  async #do(action: Action, id: string, { homeserver, registrar, quarantine }: Replica): Promise<unknown> {
    const { chance } = this.#options;
    const { delivery } = homeserver;
    const { commands } = delivery;
    const state = this.#state(id);
    switch (action) {
      case 'put':
        return this.#put(id, registrar);
      case 'remove':
        return registrar.remove(id, chance.is(0.5) ? 'park' : 'discard');
      case 'pause':
      case 'resume':
        return delivery.setPaused(id, action === 'pause');
      case 'retry':
        return delivery.retryNow(id);
      case 'skip': {
        const txnId = state?.transaction?.txnId;
        return txnId === undefined ? undefined : commands.skip(id, txnId, 'the operator says so', () => quarantine.has(id, txnId));
      }
      case 'stop':
        return commands.stop(id);
      case 'replay':
        return commands.replay(id, { kind: 'position', position: Math.max(1, (state?.deliveredPosition ?? 1) - chance.below(12)) });
      case 'redeliver':
      case 'discard': {
        const shelved = await quarantine.list(id, 5, '', false);
        const first = shelved.items[0];
        return first === undefined ? undefined : action === 'redeliver' ? quarantine.redeliver(id, first.txnId) : quarantine.discard(id, first.txnId);
      }
      case 'look':
        return chance.is(0.5) ? delivery.statuses('', 100) : homeserver.deliveredPositions('s0');
    }
  }

  async #put(id: string, registrar: Replica['registrar']): Promise<PutRegistration> {
    const { chance } = this.#options;
    const registration = registrationOf(id, chance.is(0.4) ? 0 : chance.below(VARIANT_COUNT));
    await registrar.put(registration, 'api', chance.is(0.5));
    return new PutRegistration(PLAIN_VAULT.seal(SERVER, registration, 'api').json);
  }

  /** What was answered for is in the log, unless somebody changed it since. */
  #isInForce(id: string, { json }: PutRegistration, asked: number): void {
    const { history } = this.#options;
    const newest = history.segments.findLast(({ segment }) => segment.registrationChanges.some(({ appserviceId }) => appserviceId === id));
    if (newest === undefined || newest.order > asked) return;
    const change = newest.segment.registrationChanges.findLast(({ appserviceId }) => appserviceId === id);
    if (change?.kind !== 'put' || change.registration.json !== json) history.breach(`I7 IdempotentIngest: the registration of ${id} was answered as put, and another is in force`, [id]);
  }

  #state(id: string): AppserviceState | undefined {
    return this.#options.store.states.get(id);
  }

  #judge(error: unknown, action: string, id: string): void {
    const { history } = this.#options;
    history.note('refused', id, `${action}: ${error instanceof Error ? error.message : String(error)}`);
    if (!(error instanceof RefusalError) && !(error instanceof StoreError)) history.breach(`no bugs: ${action} fails: ${String(error)}`, [id]);
  }

  /** Until it has worked once. */
  #insist(what: string, use: (replica: Replica) => Promise<unknown>): void {
    const { kernel, chance, history, replica: some } = this.#options;
    let isDone = false;
    const attempt = (): void => {
      if (isDone) return;
      kernel.after(chance.between(15_000, 25_000), attempt);
      const replica = some();
      replica?.process.arrives(() => {
        use(replica).then(
          () => {
            if (!isDone) history.note('done', what, '');
            isDone = true;
          },
          (error: unknown) => this.#judge(error, what, ''),
        );
      });
    };
    kernel.after(chance.between(0, 2_000), attempt);
  }
}
