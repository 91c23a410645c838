/** Random registrations and histories of rooms, small enough that what happens in them adds up. */
import fc from 'fast-check';
import type { Namespace, Registration } from '../../src/appservice/registration.ts';
import type { Step } from './reference-matcher.ts';
import { registration, SERVER } from './routing.ts';

const LOCALPARTS = ['_irc_ann', '_irc_bob', '_xmpp_ann', 'alice', 'bot0', 'bot1', ''];
const SERVERS = [SERVER, SERVER, SERVER, 'other.test', `evil${SERVER}`, `${SERVER}:8448`, `x:${SERVER}`, SERVER.toUpperCase()];
const ROOMS = ['!irc_a:hs.test', '!b:other.test', '!C1v12roomWithoutDomain'];
const USER_PATTERNS = ['@_irc_.*', '@_irc_.*:hs\\.test', '@_irc_ann:hs\\.test$', '^@_xmpp_[a-z]+', '@(_irc|_xmpp)_ann', 'alice|@_irc_b', '@zed|ann:hs', '@alice|@bob:', '.*ann', '', '@_irc_+bob', '@_ircc?_bob', '@\\w+:other\\.test', '_irc_.*', 'x'];
const ALIAS_PATTERNS = ['#irc_.*', '#irc_.*:hs\\.test$', '#irc_a|#log', '.*log', '#irc_[ab]:', 'irc_.*'];
const ROOM_PATTERNS = ['!irc_.*', '!C1v12', '!b:other\\.test', '.*:hs\\.test', 'irc'];

const namespaces = (patterns: readonly string[]): fc.Arbitrary<Namespace[]> =>
  fc.array(fc.record({ regex: fc.constantFrom(...patterns), exclusive: fc.boolean() }), { maxLength: 2 });

const registrations: fc.Arbitrary<Registration[]> = fc.uniqueArray(
  fc.record({
    id: fc.constantFrom('irc', 'xmpp', 'log', 'z'),
    url: fc.constantFrom('http://127.0.0.1:1', 'http://127.0.0.1:1', null),
    sender_localpart: fc.constantFrom('bot0', 'bot1', 'alice'),
    users: namespaces(USER_PATTERNS),
    aliases: namespaces(ALIAS_PATTERNS),
    rooms: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: namespaces(ROOM_PATTERNS) }),
  }).map(({ id, url, sender_localpart, users, aliases, rooms }) => registration(id, { url, sender_localpart, namespaces: { users, aliases, rooms } })),
  { selector: ({ id }) => id, maxLength: 3 },
);

const identifier = (sigil: string, localparts: readonly string[]): fc.Arbitrary<string> =>
  fc.tuple(fc.constantFrom(...localparts), fc.constantFrom(...SERVERS)).map(([localpart, server]) => `${sigil}${localpart}:${server}`);
const user = identifier('@', LOCALPARTS);
const alias = identifier('#', ['irc_a', 'irc_b', 'logged', 'x']);
const room = fc.constantFrom(...ROOMS);
const list = (of: fc.Arbitrary<string>): fc.Arbitrary<string[] | undefined> => fc.option(fc.array(of, { maxLength: 3 }), { nil: undefined });

/** Few rooms and users in one history, so that what happens to them adds up. */
const steps = fc.tuple(fc.array(user, { minLength: 1, maxLength: 4 }), fc.array(room, { minLength: 1, maxLength: 2 })).chain(([users, rooms]) => {
  const roomId = fc.constantFrom(...rooms);
  const sender = fc.constantFrom(...users);
  const member = fc.record({ roomId, sender, stateKey: sender, membership: fc.constantFrom('join', 'join', 'leave', 'invite', 'ban', 'knock', undefined) });
  const other = fc.record({ roomId, sender, type: fc.constantFrom('m.room.message', 'm.room.topic', 'm.room.member'), stateKey: fc.option(sender, { nil: undefined }) });
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 4, arbitrary: member.map((event): Step => ({ kind: 'event', event: { ...event, type: 'm.room.member' } })) },
    { weight: 4, arbitrary: other.map((event): Step => ({ kind: 'event', event })) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('context' as const), roomId, members: list(sender), aliases: list(alias) }) },
    { weight: 1, arbitrary: registrations.map((all): Step => ({ kind: 'registrations', registrations: all })) },
  );
  return fc.array(step, { minLength: 1, maxLength: 14 });
});

export const history = fc.tuple(registrations, steps).map(([first, rest]): Step[] => [{ kind: 'registrations', registrations: first }, ...rest]);
