/** A homeserver's questions about third-party networks, answered from all appservices that list the protocol or have the identifier. */
import type { ThirdPartyKind, ThirdPartyQuestion } from '../appservice/third-party.ts';
import type { IngressAnswer } from '../rpc/ports.ts';
import { matrixError, queryOf } from './answers.ts';
import type { MatchedRequest } from './answers.ts';
import type { IngressHomeserver } from './ports.ts';

const REVERSE = { user: 'userid', location: 'alias' } as const;

/** Captures what is asked for and the protocol. Rejects with a RefusalError. */
export async function answerThirdParty(request: MatchedRequest, homeserver: Pick<IngressHomeserver, 'thirdPartyProtocols' | 'thirdPartyMatches'>): Promise<IngressAnswer> {
  const [what, protocol = ''] = request.captured;
  if (what === 'protocol') {
    const [found] = (await homeserver.thirdPartyProtocols(protocol)).protocols;
    return found === undefined ? matrixError(404, 'M_NOT_FOUND', 'No application service has this protocol.') : { status: 200, body: found.json };
  }
  const kind: ThirdPartyKind = what === 'user' ? 'users' : 'locations';
  const { matches } = await homeserver.thirdPartyMatches(kind, questionOf(request, protocol, kind));
  return { status: 200, body: `[${matches.map(({ json }) => json).join(',')}]` };
}

function questionOf(request: MatchedRequest, protocol: string, kind: ThirdPartyKind): ThirdPartyQuestion {
  const query = queryOf(request);
  if (protocol === '') return { by: 'identifier', identifier: query.get(kind === 'users' ? REVERSE.user : REVERSE.location) ?? '' };
  return { by: 'fields', protocol, fields: [...query].filter(([name]) => name !== 'access_token').map(([name, value]) => ({ name, value })) };
}
