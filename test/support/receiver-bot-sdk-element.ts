/** An appservice written with Element's fork of matrix-bot-sdk. Calls its homeserver when it starts. */
import { Appservice, LogLevel, LogService } from '@vector-im/matrix-bot-sdk';
import { LibraryReceiver, silence } from './receiver-library.ts';
import type { BotSdkOptions } from './receiver-library.ts';

export interface ElementBotSdkOptions extends BotSdkOptions {
  readonly protocols?: string[];
  /** Adds what the program listens to before it can be asked. */
  readonly listen?: (appservice: Appservice) => void;
}

export async function startElementBotSdk({ hsToken, asToken, homeserverUrl, serverName = 'example.org', senderLocalpart = 'logger', port, protocols = [], listen }: ElementBotSdkOptions): Promise<LibraryReceiver> {
  LogService.setLevel(LogLevel.ERROR);
  const appservice = new Appservice({
    port: 0,
    bindAddress: '127.0.0.1',
    homeserverName: serverName,
    homeserverUrl,
    registration: {
      id: 'element',
      url: 'http://127.0.0.1:1',
      protocols,
      as_token: asToken,
      hs_token: hsToken,
      sender_localpart: senderLocalpart,
      namespaces: { users: [{ exclusive: true, regex: '@_logger_.*' }], rooms: [], aliases: [] },
    },
  });
  silence(appservice.expressAppInstance);
  listen?.(appservice);
  // The two halves of its own begin(), but on a port that is free.
  const receiver = await LibraryReceiver.listen((request, response) => void appservice.expressAppInstance(request, response), port);
  await appservice.botIntent.ensureRegistered();
  appservice.on('ephemeral.event', (event: unknown) => receiver.emitted(event));
  appservice.on('room.event', (_roomId: string, event: unknown) => receiver.emitted(event));
  return receiver;
}
