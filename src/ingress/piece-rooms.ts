/** Which rooms a piece of a transaction is about, and what its events tell of them. */
import type { RoutingEvent } from '../appservice/event.ts';
import type { TransactionPiece } from './ports.ts';

export function isCreation({ type, stateKey }: RoutingEvent): boolean {
  return type === 'm.room.create' && stateKey === '';
}

/** Remote servers write into them what they like, so they are no facts, only a reason to ask. */
export function tellsOfAliases({ type, stateKey }: RoutingEvent): boolean {
  return stateKey !== undefined && (type === 'm.room.canonical_alias' || type === 'm.room.aliases');
}

export function* roomsOf({ events, ephemeral }: TransactionPiece): Generator<string, void, undefined> {
  for (const { roomId } of events) yield roomId;
  for (const event of ephemeral) if (event.kind !== 'presence') yield event.roomId;
}
