/**
 * What grpc-js has no option for: the receive windows of the gRPC port, and how many connections it takes.
 *
 * HTTP/2 begins with 64 KiB per stream and connection, so a call of 100 events waits for the other side's
 * acknowledgements; with 1 MiB it arrives in one go. Both reach into a private method of grpc-js. Where that method is
 * not as expected, the windows stay small, the connections unlimited, and nothing else changes.
 */
import type { Server } from '@grpc/grpc-js';
import type { Http2Server, ServerHttp2Session } from 'node:http2';
import { Server as NetServer } from 'node:net';

export const STREAM_WINDOW_BYTES = 1024 * 1024;
export const CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024;

/** Returns false if this grpc-js cannot be given larger windows. Call it before the server is bound. */
export function enlargeReceiveWindows(server: Server): boolean {
  const options: unknown = Reflect.get(server, 'commonServerOptions');
  if (typeof options !== 'object' || options === null) return false;
  const prepared = onHttp2Server(server, (http2Server) => {
    http2Server.on('session', (session: ServerHttp2Session) => session.setLocalWindowSize(CONNECTION_WINDOW_BYTES));
  });
  if (!prepared) return false;
  const settings: unknown = Reflect.get(options, 'settings');
  const known = typeof settings === 'object' && settings !== null ? settings : {};
  return Reflect.set(options, 'settings', { ...known, initialWindowSize: STREAM_WINDOW_BYTES });
}

/** Further connections are closed at once. Returns false if this grpc-js cannot be told. Call it before the server is bound. */
export function limitConnections(server: Server, connectionsMax: number): boolean {
  return onHttp2Server(server, (http2Server) => {
    http2Server.maxConnections = connectionsMax;
  });
}

function onHttp2Server(server: Server, prepare: (http2Server: Http2Server) => void): boolean {
  const create: unknown = Reflect.get(server, 'createHttp2Server');
  if (typeof create !== 'function') return false;
  return Reflect.set(server, 'createHttp2Server', (...args: unknown[]): unknown => {
    const created: unknown = Reflect.apply(create, server, args);
    if (isHttp2Server(created)) prepare(created);
    return created;
  });
}

function isHttp2Server(value: unknown): value is Http2Server {
  return value instanceof NetServer && 'updateSettings' in value;
}
