/** An appservice written with matrix-bot-sdk 0.8. Calls its homeserver when it starts. Its program dies when a handler of its throws. */
import { Appservice, LogLevel, LogService } from 'matrix-bot-sdk';
import { LibraryReceiver, silence } from './receiver-library.ts';
import type { BotSdkOptions } from './receiver-library.ts';

/** What it emits beside room events. */
const OTHERS = ['ephemeral.event', 'device_lists', 'otk.counts', 'otk.unused_fallback_keys'] as const;

export async function startBotSdk({ hsToken, asToken, homeserverUrl, serverName = 'example.org', senderLocalpart = 'logger', port, onOther = () => undefined }: BotSdkOptions): Promise<LibraryReceiver> {
  LogService.setLevel(LogLevel.ERROR);
  const appservice = new Appservice({
    port: 0,
    bindAddress: '127.0.0.1',
    homeserverName: serverName,
    homeserverUrl,
    registration: {
      as_token: asToken,
      hs_token: hsToken,
      sender_localpart: senderLocalpart,
      namespaces: { users: [{ exclusive: true, regex: '@_logger_.*' }], rooms: [], aliases: [] },
    },
  });
  silence(appservice.expressAppInstance);
  // The two halves of its own begin(), but on a port that is free.
  const receiver = await LibraryReceiver.listen((request, response) => void appservice.expressAppInstance(request, response), port);
  await appservice.botIntent.ensureRegistered();
  appservice.on('ephemeral.event', (event: unknown) => receiver.emitted(event));
  appservice.on('room.event', (_roomId: string, event: unknown) => receiver.emitted(event));
  for (const name of OTHERS) appservice.on(name, (value: unknown) => onOther(name, value));
  return receiver;
}
