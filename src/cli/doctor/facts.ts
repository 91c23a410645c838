/** What doctor knows of a set-up before it judges. Whatever could not be learnt says so; nothing here holds a token. */
import type { Registration } from '../../appservice/registration.ts';
import type { Overlap } from './overlaps.ts';

/** A file or directory and who may use it. */
export interface PathFact {
  readonly path: string;
  readonly exists: boolean;
  /** Permission bits; 0 if it does not exist. */
  readonly mode: number;
  /** By this user. */
  readonly isWritable: boolean;
}

export interface RegistrationFileFact {
  readonly path: string;
  /** With line and field where they are known; empty if the file can be used. */
  readonly problems: readonly string[];
  readonly registration: Registration | null;
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

/** A registration in force, without its tokens. */
export interface RegistrationFact {
  readonly id: string;
  readonly url: string | null;
  readonly namespaceCount: number;
  readonly senderLocalpart: string;
  /** kind and pattern of each exclusive namespace. */
  readonly exclusive: readonly string[];
}

export interface AppserviceFact {
  readonly id: string;
  readonly state: string;
  readonly isPaused: boolean;
  readonly isParked: boolean;
  readonly backlogEntries: number;
  readonly oldestAgeMs: number | null;
  readonly quarantinedEntries: number;
  readonly lastError: { readonly kind: string; readonly httpStatus: number | null; readonly message: string } | null;
  /** Null: it was not asked. */
  readonly ping: { readonly errcode: string | null; readonly httpStatus: number | null } | null;
}

export type MongoFact =
  | { readonly kind: 'faulty'; readonly isReachable: boolean; readonly message: string }
  | {
      readonly kind: 'reached';
      readonly missingIndexes: readonly string[];
      /** Of the database; null where none is there yet. */
      readonly schemaVersion: number | null;
      readonly schemaVersionKnown: number;
      /** Its clock less this machine's. */
      readonly clockOffsetMs: number;
    };

export interface HttpFact {
  readonly isReady: boolean;
  readonly detail: string;
  /** The router's clock less this machine's, to the second. */
  readonly clockOffsetMs: number | null;
  readonly upMs: number | null;
  /** Since the last submission that was taken; null: none since the start. */
  readonly submissionAgeMs: number | null;
}

export type RouterFact =
  | { readonly kind: 'not_asked'; readonly message: string }
  | { readonly kind: 'unreachable' | 'unauthorised' | 'refused'; readonly message: string }
  | {
      readonly kind: 'reached';
      readonly registrations: readonly RegistrationFact[];
      /** Beside equal patterns, which the facts above show. */
      readonly overlaps: readonly Overlap[];
      readonly appservices: readonly AppserviceFact[];
      /** Null: no homeserver sends its traffic by the ingress. */
      readonly ingress: IngressFact | null;
      /** Null: its HTTP port could not be asked. */
      readonly http: HttpFact | null;
    };

/** What the homeserver says to the catch-all's as_token, from this machine. */
export type CatchAllFact =
  | { readonly kind: 'unreachable'; readonly message: string }
  /** Something else than the Client-Server API answers. */
  | { readonly kind: 'other'; readonly httpStatus: number }
  | { readonly kind: 'unknown_token' }
  | {
      readonly kind: 'known';
      readonly serverName: string;
      /** What came of having it ping the router; null: it could not be told to. */
      readonly ping: { readonly errcode: string | null; readonly httpStatus: number | null } | null;
    };

export interface IngressSetupFact {
  readonly tokenFile: PathFact;
  /** Why the router cannot use the token file. */
  readonly problem: string | null;
  /** As it is configured here. */
  readonly serverName: string;
  readonly homeserverUrl: string | null;
  /** Null: the homeserver was not asked. */
  readonly catchAll: CatchAllFact | null;
}

/** How the traffic of an unmodified homeserver stands in the running router. */
export interface IngressFact {
  readonly gapMs: number | null;
  readonly shelvedItems: number;
  readonly unknownRooms: number;
  readonly unknownRoomId: string | null;
  readonly problem: string | null;
}

export interface LocalFacts {
  readonly configProblems: readonly string[];
  /** Null where the configuration cannot be used. */
  readonly settings: {
    readonly storeKind: 'memory' | 'sqlite' | 'mongodb';
    readonly isLoopback: boolean;
    readonly dataDir: PathFact;
    readonly storeFile: PathFact | null;
    readonly credentialsFile: PathFact;
    /** ROUTER_CREDENTIALS names it; otherwise the first start makes it. */
    readonly isCredentialsFileNamed: boolean;
    readonly credentialProblems: readonly string[];
    readonly credentialRoles: readonly string[];
    readonly keyFile: PathFact;
    readonly keyProblem: string | null;
    readonly freeBytes: number | null;
    readonly lostPaths: readonly { readonly path: string; readonly message: string }[];
    readonly files: readonly RegistrationFileFact[];
    /** Null: no ingress is configured. */
    readonly ingress: IngressSetupFact | null;
  } | null;
  readonly openFilesMax: number | null;
  readonly nodeMajor: number;
}

export interface Facts {
  readonly local: LocalFacts;
  /** Null: the store is no MongoDB, or its place is not known. */
  readonly mongo: MongoFact | null;
  readonly router: RouterFact;
}

export interface Finding {
  readonly code: string;
  readonly severity: 'error' | 'warning';
  /** The file, appservice or setting meant. */
  readonly subject: string;
  readonly message: string;
  /** What to do. */
  readonly advice: string;
}

/** One check: its name, and what it finds. Pure. */
export interface Check {
  readonly code: string;
  readonly find: (facts: Facts) => readonly Omit<Finding, 'code'>[];
}
