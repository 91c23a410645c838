/**
 * Watches the error rate of each appservice and raises `appservice.escalation` once when it passes the limit (M12).
 * In memory: each replica judges by what it asked itself, and a restart begins calm.
 */
import { ErrorWindow } from './appservice/error-window.ts';
import type { DomainEventSink } from './appservice/domain-event.ts';
import type { Operation, OperationSink } from './appservice/operation.ts';
import type { Clock } from './clock.ts';

export interface EscalationsOptions {
  readonly events: DomainEventSink;
  /** Told of each operation too. */
  readonly meter: OperationSink;
  readonly clock: Clock;
  readonly windowMs: number;
  /** Appservices watched at a time; of more than these, no further ones. */
  readonly appservicesMax?: number;
}

/** Of one appservice. */
export interface ErrorRate {
  /** From 0 to 1. */
  readonly errorRate: number;
  readonly isRaised: boolean;
}

const APPSERVICES_MAX = 20_000;
const CALM: ErrorRate = { errorRate: 0, isRaised: false };

export class Escalations implements OperationSink {
  readonly #options: EscalationsOptions;
  readonly #appservicesMax: number;
  /** By server name, then by appservice. */
  readonly #windows = new Map<string, Map<string, ErrorWindow>>();
  #windowCount = 0;

  constructor(options: EscalationsOptions) {
    this.#options = options;
    this.#appservicesMax = options.appservicesMax ?? APPSERVICES_MAX;
  }

  operated(operation: Operation): void {
    const { meter, clock, events } = this.#options;
    meter.operated(operation);
    const { serverName, appserviceId, failed } = operation;
    const window = this.#windowOf(serverName, appserviceId);
    const nowMs = clock.monotonicMs();
    if (window?.add(failed, nowMs) !== true) return;
    events.emit({ serverName, timeMs: clock.nowMs(), event: { kind: 'escalation', service_id: appserviceId, error_rate: window.rate(nowMs) } });
  }

  errorRate(serverName: string, appserviceId: string): ErrorRate {
    const window = this.#windows.get(serverName)?.get(appserviceId);
    return window === undefined ? CALM : { errorRate: window.rate(this.#options.clock.monotonicMs()), isRaised: window.isRaised };
  }

  /** Forgets the appservices of a homeserver that are not among these. */
  retain(serverName: string, appserviceIds: ReadonlySet<string>): void {
    const byId = this.#windows.get(serverName);
    for (const id of byId?.keys() ?? []) if (!appserviceIds.has(id) && byId?.delete(id) === true) this.#windowCount -= 1;
  }

  #windowOf(serverName: string, appserviceId: string): ErrorWindow | undefined {
    const byId = this.#windows.get(serverName);
    const known = byId?.get(appserviceId);
    if (known !== undefined || this.#windowCount >= this.#appservicesMax) return known;
    const window = new ErrorWindow(this.#options.windowMs);
    this.#windows.set(serverName, (byId ?? new Map<string, ErrorWindow>()).set(appserviceId, window));
    this.#windowCount += 1;
    return window;
  }
}
