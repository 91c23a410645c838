/** An appservice written with matrix-appservice 2. Needs no homeserver. */
import { AppService } from 'matrix-appservice';
import { LibraryReceiver, silence } from './receiver-library.ts';

export interface MatrixAppserviceOptions {
  readonly hsToken: string;
  readonly port?: number;
}

export async function startMatrixAppservice({ hsToken, port }: MatrixAppserviceOptions): Promise<LibraryReceiver> {
  const appservice = new AppService({ homeserverToken: hsToken });
  silence(appservice.expressApp);
  const receiver = await LibraryReceiver.listen((request, response) => void appservice.expressApp(request, response), port);
  appservice.on('event', (event) => receiver.emitted(event));
  appservice.on('ephemeral', (event) => receiver.emitted(event));
  return receiver;
}
