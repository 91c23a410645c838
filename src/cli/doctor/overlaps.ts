/** Overlapping exclusive namespaces of several registrations, as PutRegistration would warn of them one after the other. */
import { NamespaceIndex } from '../../appservice/namespaces.ts';
import type { Registration } from '../../appservice/registration.ts';
import type { Clock } from '../../clock.ts';
import { overlapWarnings } from '../../registration/namespace-overlaps.ts';

export interface Overlap {
  readonly id: string;
  readonly code: string;
  readonly message: string;
}

/** More are not looked at: the time grows with the square of their number. */
const REGISTRATIONS_MAX = 300;

/** What each has in common with those before it. */
export async function overlapsOf(registrations: readonly Registration[], serverName: string, clock: Clock): Promise<Overlap[]> {
  const pause = (): Promise<void> => clock.pause();
  const overlaps: Overlap[] = [];
  const before: Registration[] = [];
  let index = await NamespaceIndex.compile(serverName, [], pause);
  for (const registration of registrations.slice(0, REGISTRATIONS_MAX)) {
    for (const { code, message } of await overlapWarnings(registration, index, pause)) overlaps.push({ id: registration.id, code, message });
    before.push(registration);
    index = await NamespaceIndex.compile(serverName, before, pause, index);
  }
  return overlaps;
}
