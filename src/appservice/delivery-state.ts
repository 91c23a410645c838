/**
 * The delivery states of an appservice and the moves between them (contract section 2, M1).
 *
 *            cut                 push failed
 *   idle ──────────▶ delivering ─────────────▶ retrying
 *    ▲                │      ▲                    │
 *    └────────────────┘      └────────────────────┘
 *     nothing is left              next attempt
 *
 * `failed` is terminal and is reached from any state by an operator's word only. `paused` is a flag beside the state. A new
 * life of the id begins in `idle`, whatever the one before ended in; that is no move.
 */
export const DELIVERY_STATES = ['idle', 'delivering', 'retrying', 'failed'] as const;

export type DeliveryState = (typeof DELIVERY_STATES)[number];

const LEGAL_MOVES: Readonly<Record<DeliveryState, readonly DeliveryState[]>> = {
  idle: ['delivering', 'failed'],
  delivering: ['idle', 'retrying', 'failed'],
  retrying: ['delivering', 'failed'],
  failed: [],
};

/** Returns `to`; throws on an illegal move, which is a bug. Staying in a state is no move. */
export function moveDeliveryState(from: DeliveryState, to: DeliveryState): DeliveryState {
  if (from !== to && !LEGAL_MOVES[from].includes(to)) throw new Error(`illegal delivery state move: ${from} to ${to}`);
  return to;
}
