/** What was submitted against what stands in the log: I1 NoLoss, I2 Order, I7 IdempotentIngest, I9 Match, I10 Liveness. */
import type { Breach, Evidence } from './checker.ts';
import type { LogView } from './log-view.ts';
import type { Item } from './rooms.ts';

export function ingestBreaches({ history, writers, clients }: Evidence, view: LogView): Breach[] {
  const breaches: Breach[] = [];
  for (const client of clients) if (!client.isDone) breaches.push({ text: 'I10 Liveness: a homeserver is not rid of all that it has to submit', about: [] });
  for (const key of view.waiting) breaches.push({ text: `I10 Liveness: ${key} waits for an answer for ever`, about: key.split(' ') });
  const appended = history.segments.map(({ order }) => order);
  for (const { items, stream } of writers) {
    let last = 0;
    for (const item of items) {
      const home = view.homes.get(item.id);
      if (home === undefined) {
        if (item.ackedMs !== null) breaches.push(...unwanted(item, appended, view));
        continue;
      }
      if (home.position < last) breaches.push({ text: `I2 Order: ${item.id} stands in the log before what was submitted before it`, about: [item.id] });
      last = home.position;
      if (item.ackedOrder !== null && item.ackedOrder < (appended[home.segment] ?? 0)) breaches.push({ text: `I1 NoLoss: ${item.id} was answered before it was durable`, about: [item.id, stream] });
      breaches.push(...matched(item, home.segment, new Set([...home.appserviceIds, ...home.heldFor]), view));
    }
    breaches.push(...roomOrder(items, view));
  }
  return breaches;
}

function matched(item: Item, segment: number, actual: ReadonlySet<string>, view: LogView): Breach[] {
  const breaches: Breach[] = [];
  let count = 0;
  for (const appservice of view.registrationsAt[segment] ?? []) {
    if (!appservice.wants(item)) continue;
    count++;
    if (!actual.has(appservice.id)) breaches.push({ text: `I9 Match: ${item.id} is not routed to ${appservice.id}, which is interested`, about: [item.id, item.stream] });
  }
  if (count < actual.size) breaches.push({ text: `I9 Match: ${item.id} is routed to ${[...actual].join(', ')}, of which only ${count} are interested`, about: [item.id, item.stream] });
  return breaches;
}

/** What was answered and is not in the log was judged between its first submission and its answer: nobody may have wanted it all that time. */
function unwanted(item: Item, appended: readonly number[], view: LogView): Breach[] {
  const countBefore = (order: number): number => {
    const at = appended.findIndex((other) => other > order);
    return at === -1 ? appended.length : at;
  };
  const from = countBefore(item.offeredOrder ?? 0);
  const to = countBefore(item.ackedOrder ?? Infinity);
  const always = (view.registrationsAt[from] ?? view.registrationsAtEnd).filter((appservice) => appservice.wants(item)).map(({ id }) => id);
  const isWanting = (id: string): boolean => {
    for (let at = from; at <= to; at++) if ((view.registrationsAt[at] ?? view.registrationsAtEnd).find((appservice) => appservice.id === id)?.wants(item) !== true) return false;
    return true;
  };
  return always.filter(isWanting).map((id) => ({ text: `I1 NoLoss: ${item.id} was answered, ${id} is interested, and it is not in the log`, about: [item.id, item.stream] }));
}

/** For each appservice and room the order in which it gets things is the order in which they happened, and it gets each once. */
function roomOrder(items: readonly Item[], view: LogView): Breach[] {
  const place = new Map(items.map((item, at) => [item.id, { at, roomId: item.before.roomId }]));
  const breaches: Breach[] = [];
  for (const [appserviceId, routed] of view.routed) {
    const last = new Map<string, number>();
    const seen = new Set<string>();
    for (const { id, isRedelivery } of routed) {
      const found = place.get(id);
      if (found === undefined || isRedelivery) continue;
      if (seen.has(id)) breaches.push({ text: `I7 IdempotentIngest: ${id} is routed to ${appserviceId} twice`, about: [id] });
      seen.add(id);
      if (found.at < (last.get(found.roomId) ?? -1)) breaches.push({ text: `I2 Order: ${id} is routed to ${appserviceId} after what happened later in its room`, about: [id, appserviceId] });
      last.set(found.roomId, Math.max(found.at, last.get(found.roomId) ?? -1));
    }
  }
  return breaches;
}
