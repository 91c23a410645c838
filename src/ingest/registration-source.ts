/** The registrations of the fold, as delivery asks for them. */
import type { RegistrationInForce, RegistrationSource } from '../delivery/ports.ts';
import type { Fold } from './fold.ts';

export function registrationSource(fold: Fold): RegistrationSource {
  return {
    find: (_serverName, appserviceId): RegistrationInForce | undefined => fold.registrations.get(appserviceId),
    list: () => [...fold.registrations.values()],
  };
}
