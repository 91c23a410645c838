/**
 * Who calls, and what they may call. Default deny: a method without a rule cannot be called by anybody.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { Code, RpcStatus } from './status.ts';

export type Role = 'homeserver' | 'admin' | 'monitor';

/** A credential as it is configured: the token itself is known to its owner only. */
export interface Credential {
  readonly name: string;
  readonly role: Role;
  /** The homeserver it is bound to; null for operators of all, and for the role `homeserver` the configured one. */
  readonly serverName: string | null;
  /** SHA-256 of the token, lower-case hex. */
  readonly tokenSha256: string;
}

export type Caller = Pick<Credential, 'name' | 'role' | 'serverName'>;

const ROUTER = 'matrix.appservice.v1.AppserviceRouter';
const ADMIN = 'matrix.appservice.v1.AppserviceAdmin';
const READERS: readonly Role[] = ['admin', 'monitor'];

/** `service/method` → roles. */
export const METHOD_ROLES: Readonly<Record<string, readonly Role[]>> = {
  [`${ROUTER}/SubmitEvents`]: ['homeserver'],
  [`${ROUTER}/StreamEvents`]: ['homeserver'],
  [`${ROUTER}/GetStreamPosition`]: ['homeserver'],
  [`${ROUTER}/GetDeliveredPositions`]: ['homeserver'],
  [`${ROUTER}/CheckNamespace`]: ['homeserver', 'admin'],
  [`${ROUTER}/AuthorizeIdentifier`]: ['homeserver'],
  [`${ROUTER}/AuthenticateAppservice`]: ['homeserver'],
  [`${ROUTER}/PingAppservice`]: ['homeserver', 'admin'],
  [`${ROUTER}/QueryUser`]: ['homeserver'],
  [`${ROUTER}/QueryRoomAlias`]: ['homeserver'],
  [`${ROUTER}/ListThirdPartyProtocols`]: ['homeserver'],
  [`${ROUTER}/QueryThirdPartyUsers`]: ['homeserver'],
  [`${ROUTER}/QueryThirdPartyLocations`]: ['homeserver'],
  [`${ROUTER}/ClaimKeys`]: ['homeserver'],
  [`${ROUTER}/QueryKeys`]: ['homeserver'],
  [`${ADMIN}/PutRegistration`]: ['admin'],
  [`${ADMIN}/GetRegistration`]: READERS,
  [`${ADMIN}/ListRegistrations`]: READERS,
  [`${ADMIN}/DeleteRegistration`]: ['admin'],
  [`${ADMIN}/GetAppservice`]: READERS,
  [`${ADMIN}/ListAppservices`]: READERS,
  [`${ADMIN}/PauseDelivery`]: ['admin'],
  [`${ADMIN}/ResumeDelivery`]: ['admin'],
  [`${ADMIN}/RetryNow`]: ['admin'],
  [`${ADMIN}/StopAppservice`]: ['admin'],
  [`${ADMIN}/SkipTransaction`]: ['admin'],
  [`${ADMIN}/ListQuarantinedTransactions`]: READERS,
  [`${ADMIN}/RedeliverTransaction`]: ['admin'],
  [`${ADMIN}/DiscardTransaction`]: ['admin'],
  [`${ADMIN}/ReplayEvents`]: ['admin'],
  [`${ADMIN}/ListAuditEntries`]: READERS,
  [`${ADMIN}/ExplainRouting`]: READERS,
  [`${ADMIN}/WatchEvents`]: READERS,
};

const RULES: ReadonlyMap<string, readonly Role[]> = new Map(Object.entries(METHOD_ROLES));

/** Headers whose credential is remembered. */
const REMEMBERED_MAX = 1000;

export class Authenticator {
  readonly #credentials: readonly { readonly caller: Caller; readonly hash: Buffer }[];
  readonly #remembered = new Map<string, Caller>();

  constructor(credentials: readonly Credential[]) {
    for (const { name, tokenSha256 } of credentials) {
      if (!/^[0-9a-f]{64}$/.test(tokenSha256)) throw new Error(`the credential "${name}" needs token_sha256, the SHA-256 of its token in 64 lower-case hex digits`);
    }
    this.#credentials = credentials.map(({ name, role, serverName, tokenSha256 }) => ({ caller: { name, role, serverName }, hash: Buffer.from(tokenSha256, 'hex') }));
  }

  /** The caller of a method (`service/method`) by the value of its `authorization` header. Throws an RpcStatus. */
  authenticate(method: string, header: string | undefined): Caller {
    if (header === undefined || header === '') {
      throw new RpcStatus({ code: Code.unauthenticated, reason: 'CREDENTIAL_MISSING', message: 'Send "authorization: Bearer TOKEN" with a token of this router.' });
    }
    const caller = this.#remembered.get(header) ?? this.#find(header);
    if (caller === undefined) {
      throw new RpcStatus({ code: Code.unauthenticated, reason: 'CREDENTIAL_UNKNOWN', message: 'No credential of this router has the token that was sent. See ROUTER_CREDENTIALS.' });
    }
    if (RULES.get(method)?.includes(caller.role) === true) return caller;
    const message = `The credential "${caller.name}" has the role ${caller.role}, which may not call ${method}.`;
    throw new RpcStatus({ code: Code.permissionDenied, reason: 'ROLE_FORBIDDEN', message, metadata: { role: caller.role } });
  }

  /** True if the header belongs to a credential with one of the roles. */
  hasRole(header: string | undefined, roles: readonly Role[]): boolean {
    const caller = header === undefined ? undefined : this.#find(header);
    return caller !== undefined && roles.includes(caller.role);
  }

  #find(header: string): Caller | undefined {
    const token = /^Bearer ([^\s]{1,4096})$/i.exec(header)?.[1];
    if (token === undefined) return undefined;
    const hash = createHash('sha256').update(token).digest();
    let found: Caller | undefined;
    for (const credential of this.#credentials) if (timingSafeEqual(credential.hash, hash)) found = credential.caller;
    if (found !== undefined) this.#remember(header, found);
    return found;
  }

  #remember(header: string, caller: Caller): void {
    if (this.#remembered.size >= REMEMBERED_MAX) this.#remembered.clear();
    this.#remembered.set(header, caller);
  }
}
