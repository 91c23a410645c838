/** An appservice written with matrix-appservice-bridge 10, for what it is asked and sent. Nothing here calls its homeserver. */
import { AppService, AppServiceRegistration, Bridge } from 'matrix-appservice-bridge';
import type { BridgeOpts } from 'matrix-appservice-bridge';
import { LibraryReceiver, silence } from './receiver-library.ts';

export interface BridgeOptions {
  readonly hsToken: string;
  readonly asToken: string;
  readonly serverName: string;
  readonly senderLocalpart: string;
  readonly thirdPartyLookup?: NonNullable<BridgeOpts['controller']['thirdPartyLookup']>;
}

export async function startBridge({ hsToken, asToken, serverName, senderLocalpart, thirdPartyLookup }: BridgeOptions): Promise<LibraryReceiver> {
  const registration = AppServiceRegistration.fromObject({
    id: 'bridge',
    url: 'http://127.0.0.1:1',
    as_token: asToken,
    hs_token: hsToken,
    sender_localpart: senderLocalpart,
    namespaces: { users: [], aliases: [], rooms: [] },
    'de.sorunome.msc2409.push_ephemeral': true,
  });
  let emitted: (event: unknown) => void = () => undefined;
  const bridge = new Bridge({
    homeserverUrl: 'http://127.0.0.1:1',
    domain: serverName,
    registration,
    disableStores: true,
    controller: {
      onEvent: () => undefined,
      onEphemeralEvent: (request) => emitted(request.getData()),
      ...(thirdPartyLookup === undefined ? {} : { thirdPartyLookup }),
    },
  });
  // A timer without an end, which would keep the process.
  Reflect.set(bridge, 'setupIntentCulling', () => undefined);
  const appservice = new AppService({ homeserverToken: hsToken });
  silence(appservice.expressApp);
  const receiver = await LibraryReceiver.listen((request, response) => void appservice.expressApp(request, response));
  emitted = (event) => receiver.emitted(event);
  // Its own way of listening takes a port that is known before.
  appservice.listen = () => Promise.resolve();
  await bridge.initialise();
  await bridge.listen(0, '127.0.0.1', 1, appservice);
  return receiver;
}
