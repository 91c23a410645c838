/**
 * Receive windows of the gRPC port. HTTP/2 begins with 64 KiB per stream and connection, so a call of 100 events waits
 * for the other side's acknowledgements; with 1 MiB it arrives in one go. grpc-js has no option for a server's windows:
 * this reaches into a private method of it. Where that method is not as expected, the windows stay small and nothing
 * else changes.
 */
import type { Server } from '@grpc/grpc-js';
import type { Http2Server, ServerHttp2Session } from 'node:http2';

export const STREAM_WINDOW_BYTES = 1024 * 1024;
export const CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024;

/** Returns false if this grpc-js cannot be given larger windows. Call it before the server is bound. */
export function enlargeReceiveWindows(server: Server): boolean {
  const options: unknown = Reflect.get(server, 'commonServerOptions');
  const create: unknown = Reflect.get(server, 'createHttp2Server');
  if (typeof options !== 'object' || options === null || typeof create !== 'function') return false;
  const settings: unknown = Reflect.get(options, 'settings');
  const known = typeof settings === 'object' && settings !== null ? settings : {};
  Reflect.set(options, 'settings', { ...known, initialWindowSize: STREAM_WINDOW_BYTES });
  Reflect.set(server, 'createHttp2Server', (...args: unknown[]): unknown => {
    const http2Server = Reflect.apply(create, server, args) as Http2Server;
    http2Server.on('session', (session: ServerHttp2Session) => session.setLocalWindowSize(CONNECTION_WINDOW_BYTES));
    return http2Server;
  });
  return true;
}
