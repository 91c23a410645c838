/** An appservice written with matrix-appservice 2. Needs no homeserver. */
import { AppService } from 'matrix-appservice';
import { LibraryReceiver, silence } from './receiver-library.ts';

export { AppserviceHttpError } from 'matrix-appservice';

export interface MatrixAppserviceOptions {
  readonly hsToken: string;
  readonly port?: number;
  /** Resolves once the user exists; rejects with an AppserviceHttpError if there is none. */
  readonly onUserQuery?: (userId: string) => Promise<void>;
  readonly onAliasQuery?: (alias: string) => Promise<void>;
}

export async function startMatrixAppservice({ hsToken, port, onUserQuery, onAliasQuery }: MatrixAppserviceOptions): Promise<LibraryReceiver> {
  const appservice = new AppService({ homeserverToken: hsToken });
  if (onUserQuery !== undefined) appservice.onUserQuery = onUserQuery;
  if (onAliasQuery !== undefined) appservice.onAliasQuery = onAliasQuery;
  silence(appservice.expressApp);
  const receiver = await LibraryReceiver.listen((request, response) => void appservice.expressApp(request, response), port);
  appservice.on('event', (event) => receiver.emitted(event));
  appservice.on('ephemeral', (event) => receiver.emitted(event));
  return receiver;
}
