/**
 * Who gets an event, as the requirements say it and as plainly as it can be written: a loop over all registrations,
 * one RegExp at a time, the room put together from its whole history for every event. The measure for the real one (I9).
 */
import type { Registration } from '../../src/appservice/registration.ts';

export interface ReferenceEvent {
  readonly roomId: string;
  readonly type: string;
  readonly sender: string;
  readonly stateKey?: string | undefined;
  readonly membership?: string | undefined;
}

/** What happens at a homeserver, in order. */
export type Step =
  | { readonly kind: 'event'; readonly event: ReferenceEvent }
  | { readonly kind: 'context'; readonly roomId: string; readonly members: readonly string[] | undefined; readonly aliases: readonly string[] | undefined }
  | { readonly kind: 'registrations'; readonly registrations: readonly Registration[] };

/** Ways to get it wrong, for the controls. */
export type Mistake =
  | 'R22 only the first branch is anchored'
  | 'R26 a name that ends alike is local'
  | 'R29 a membership target is nobody'
  | 'R32 the own user is nobody'
  | 'R33 an invited user counts'
  | 'R34 a remote member counts'
  | 'R35 a remote sender counts'
  | 'R36 room ids do not count'
  | 'R37 aliases do not count'
  | 'R38 a sender counts only while joined'
  | 'R39 a user that left still counts'
  | 'R41 a removed alias still counts'
  | 'R46 no URL makes no difference';

const ANCHORED = (regex: string, mistake: Mistake | undefined): RegExp =>
  new RegExp(mistake === 'R22 only the first branch is anchored' ? `^${regex}` : `^(?:${regex})`, 'u');

function isLocal(identifier: string, server: string, mistake: Mistake | undefined): boolean {
  if (mistake === 'R26 a name that ends alike is local') return identifier.endsWith(server);
  return identifier.split(':').slice(1).join(':') === server;
}

/** For each event of `steps`, the ids of the appservices that get it, in the order of the registrations. */
export function referenceRoutes(server: string, steps: readonly Step[], mistake?: Mistake): string[][] {
  return steps.flatMap((step, at) => (step.kind === 'event' ? [whoGets(server, step.event, steps.slice(0, at + 1), mistake)] : []));
}

function whoGets(server: string, event: ReferenceEvent, past: readonly Step[], mistake: Mistake | undefined): string[] {
  let registrations: readonly Registration[] = [];
  let joined: string[] = [];
  let aliases: string[] = [];
  for (const step of past) {
    if (step.kind === 'registrations') registrations = step.registrations;
    else if (step.kind === 'context') {
      if (step.roomId !== event.roomId) continue;
      if (step.members !== undefined) joined = [...step.members];
      if (step.aliases !== undefined) aliases = mistake === 'R41 a removed alias still counts' ? [...aliases, ...step.aliases] : [...step.aliases];
    } else if (step.event.roomId === event.roomId && step.event.type === 'm.room.member' && step.event.stateKey !== undefined && step.event.membership !== undefined) {
      const { stateKey, membership } = step.event;
      if (mistake !== 'R39 a user that left still counts') joined = joined.filter((user) => user !== stateKey);
      if (membership === 'join' || (mistake === 'R33 an invited user counts' && membership === 'invite')) joined = [...joined, stateKey];
    }
  }
  return registrations.filter((registration) => wants(registration)).map(({ id }) => id);

  function wants({ url, namespaces, sender_localpart: localpart }: Registration): boolean {
    if (url === null && mistake !== 'R46 no URL makes no difference') return false;
    const matches = (kind: 'users' | 'aliases' | 'rooms', identifier: string): boolean =>
      namespaces[kind].some(({ regex }) => ANCHORED(regex, mistake).test(identifier));
    const isOurs = (user: string, remoteCounts: boolean): boolean => {
      if (user === `@${localpart}:${server}` && mistake !== 'R32 the own user is nobody') return true;
      return (remoteCounts || isLocal(user, server, mistake)) && matches('users', user);
    };
    if (matches('rooms', event.roomId) && mistake !== 'R36 room ids do not count') return true;
    if (mistake !== 'R37 aliases do not count' && aliases.some((alias) => isLocal(alias, server, mistake) && matches('aliases', alias))) return true;
    if (joined.some((user) => isOurs(user, mistake === 'R34 a remote member counts'))) return true;
    if (mistake !== 'R38 a sender counts only while joined' && isOurs(event.sender, mistake === 'R35 a remote sender counts')) return true;
    if (event.type !== 'm.room.member' || event.stateKey === undefined || mistake === 'R29 a membership target is nobody') return false;
    return isOurs(event.stateKey, false);
  }
}
