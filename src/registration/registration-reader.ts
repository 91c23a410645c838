/**
 * One way to read a registration, for both ways in which it arrives.
 */
import type { Registration } from '../appservice/registration.ts';
import { parseOutboundUrl } from '../query/outbound-url.ts';
import type { RegistrationRules } from './registration-rules.ts';
import { readRegistration, registrationFromYaml } from './registration-yaml.ts';
import type { RegistrationReading } from './registration-yaml.ts';

export type RegistrationSource = { readonly kind: 'yaml'; readonly text: string } | { readonly kind: 'registration'; readonly registration: Registration };

/**
 * Judges a registration for one homeserver beside `others`, those in force. `hostProblem` says why the router could never
 * connect to a host, as a sentence; null if it may.
 */
export type ReadRegistration = (
  serverName: string,
  source: RegistrationSource,
  others: readonly Registration[],
  hostProblem: (host: string, port: number) => string | null,
) => RegistrationReading;

/** Never throws. */
export function registrationReader(fixed: Pick<RegistrationRules, 'rateLimitedDefault' | 'patternProblem'>): ReadRegistration {
  return (serverName, source, others, hostProblem) => {
    const urlProblem = (text: string): string | null => {
      const url = parseOutboundUrl(text);
      if (url === null) return 'The router cannot use this URL; write an http or https URL.';
      return url.unixPath === null ? hostProblem(url.host, url.port) : null;
    };
    const rules: RegistrationRules = { ...fixed, serverName, urlProblem };
    return source.kind === 'yaml' ? registrationFromYaml(source.text, rules, others) : readRegistration(source.registration, rules, others);
  };
}
