/** What registrations must be, as the settings have it. */
import { patternProblem } from '../appservice/namespaces.ts';
import type { Config } from '../config.ts';
import { createAddressPolicy } from '../query/address-policy.ts';
import { outboundUrlProblem } from '../query/outbound-url.ts';
import type { RegistrationRules } from '../registration/registration-rules.ts';

export function registrationRules({ serverName, rateLimitedDefault, outboundPolicy, outboundAllow }: Config): RegistrationRules {
  const policy = createAddressPolicy({ mode: outboundPolicy, allow: outboundAllow, ownListeners: () => [], localAddresses: () => [] });
  return { serverName, rateLimitedDefault, patternProblem, urlProblem: (url) => outboundUrlProblem(url, policy) };
}
