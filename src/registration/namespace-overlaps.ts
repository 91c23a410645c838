/**
 * Finds exclusive namespaces of a registration that overlap those of others (contract section 2, PutRegistration).
 *
 * Whether two patterns have a text in common is too much to decide for a warning; so it is sought by witnesses: samples
 * made of each pattern, and the appservices' own users, matched against the patterns of the other side. What is told is
 * true, since a witness is named that both match. What is not told may still overlap: patterns that meet only in texts
 * that neither gives as a sample, such as `@.*_a` and `@b_.*` in @b_a.
 */
import type { NamespaceIndex, NamespaceMatch } from '../appservice/namespaces.ts';
import { NamespaceIndex as Index } from '../appservice/namespaces.ts';
import { patternSamples } from '../appservice/pattern-samples.ts';
import type { NamespaceKind, Registration } from '../appservice/registration.ts';
import { senderUserId } from '../appservice/registration.ts';
import type { RegistrationWarning } from './registration-warnings.ts';

const KINDS: readonly NamespaceKind[] = ['users', 'aliases', 'rooms'];
const OVERLAPS_MAX = 20;
/** Samples of one registration, and of all others together. */
const OWN_SAMPLES_MAX = 2_000;
const RIVAL_SAMPLES_MAX = 20_000;
const STRIDE = 500;
const SHOWN_LENGTH_MAX = 100;

interface Overlap {
  readonly kind: NamespaceKind;
  readonly rivalId: string;
  readonly own: string;
  readonly rival: string;
  readonly witness: string;
}

/** `index`: the registrations in force; one with the same id is about to be replaced and does not count. */
export async function overlapWarnings(registration: Registration, index: NamespaceIndex, pause: () => Promise<void>): Promise<RegistrationWarning[]> {
  const own = await Index.compile(index.serverName, [registration], pause);
  const overlaps = new Map<string, Overlap>();
  const judge = (kind: NamespaceKind, witness: string): void => {
    const [mine] = exclusive(own.matches(kind, witness));
    if (mine === undefined) return;
    for (const { appserviceId, regex } of exclusive(index.matches(kind, witness))) {
      // Equal patterns are told without a witness.
      if (appserviceId === registration.id || regex === mine.regex) continue;
      const key = `${kind} ${appserviceId}`;
      if (!overlaps.has(key)) overlaps.set(key, { kind, rivalId: appserviceId, own: mine.regex, rival: regex, witness });
    }
  };
  let count = 0;
  for (const [kind, witness] of witnesses(registration, index)) {
    judge(kind, witness);
    if (++count % STRIDE === 0) await pause();
    if (overlaps.size >= OVERLAPS_MAX) break;
  }
  return [...[...overlaps.values()].map(overlapWarning), ...senderWarnings(registration, own, index)];
}

function* witnesses(registration: Registration, index: NamespaceIndex): Generator<readonly [NamespaceKind, string]> {
  yield* samplesOf([registration], index.serverName, OWN_SAMPLES_MAX);
  yield* samplesOf(index.registrations.filter(({ id }) => id !== registration.id), index.serverName, RIVAL_SAMPLES_MAX);
}

/** Each sample as it is, and with the server's name behind it: a pattern need not reach the end of the identifier. */
function* samplesOf(registrations: readonly Registration[], serverName: string, samplesMax: number): Generator<readonly [NamespaceKind, string]> {
  let count = 0;
  for (const { namespaces } of registrations) {
    for (const kind of KINDS) {
      for (const { regex, exclusive: isExclusive } of namespaces[kind]) {
        if (!isExclusive) continue;
        for (const sample of patternSamples(regex)) {
          if (++count > samplesMax) return;
          yield [kind, sample];
          if (kind !== 'rooms') yield [kind, `${sample}:${serverName}`];
        }
      }
    }
  }
}

/** An appservice's own user is its own, whatever the namespaces of others say (R146). */
function senderWarnings(registration: Registration, own: NamespaceIndex, index: NamespaceIndex): RegistrationWarning[] {
  const warnings: RegistrationWarning[] = [];
  for (const rival of index.registrations) {
    if (rival.id === registration.id || rival.sender_localpart === registration.sender_localpart || warnings.length >= OVERLAPS_MAX) continue;
    const userId = senderUserId(rival, index.serverName);
    const [mine] = exclusive(own.matches('users', userId));
    if (mine !== undefined) warnings.push({ code: 'SENDER_CLAIMED', message: `${shown(mine.regex)} in users is exclusive and matches ${userId}, the own user of "${rival.id}", which alone may use it.` });
  }
  const userId = senderUserId(registration, index.serverName);
  for (const { appserviceId, regex } of exclusive(index.matches('users', userId))) {
    if (appserviceId !== registration.id && warnings.length < OVERLAPS_MAX) warnings.push({ code: 'SENDER_CLAIMED', message: `Its own user ${userId} is in ${shown(regex)}, which is exclusive to "${appserviceId}"; choose another sender_localpart.` });
  }
  return warnings;
}

function overlapWarning({ kind, rivalId, own, rival, witness }: Overlap): RegistrationWarning {
  return { code: 'EXCLUSIVE_OVERLAP', message: `${shown(own)} in ${kind} overlaps ${shown(rival)}, which is exclusive to "${rivalId}": both match ${shown(witness)}, so neither may create it.` };
}

function exclusive(matches: readonly NamespaceMatch[]): NamespaceMatch[] {
  return matches.filter((match) => match.exclusive);
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, SHOWN_LENGTH_MAX));
}
