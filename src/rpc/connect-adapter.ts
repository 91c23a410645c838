/**
 * Puts Connect's handlers behind a Node.js request listener, as connect-node's own adapter does, and lets a method send the
 * headers of its answer before the first message: Connect waits for that one, so that whoever watches for what may never come
 * would not know that they do.
 */
import type { ConnectRouter, ConnectRouterOptions, HandlerContext } from '@connectrpc/connect';
import { Code, ConnectError, createConnectRouter, createContextKey, createContextValues } from '@connectrpc/connect';
import type { connectNodeAdapter } from '@connectrpc/connect-node';
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node';
import type { Logger } from '../logger.ts';

export type NodeHandler = ReturnType<typeof connectNodeAdapter>;
type NodeResponse = Parameters<NodeHandler>[1];

export interface ConnectAdapterOptions extends ConnectRouterOptions {
  readonly routes: (router: ConnectRouter) => void;
  /** For what is no method. */
  readonly fallback: NodeHandler;
  readonly logger: Logger;
}

const SEND_HEADERS = createContextKey<(headers: Headers) => void>(() => undefined, { description: 'sends headers now' });
const OK = 200;

/** Sends the headers of a call whose answers are a stream, as they are now. */
export function sendHeaders({ values, responseHeader }: Pick<HandlerContext, 'values' | 'responseHeader'>): void {
  values.get(SEND_HEADERS)(responseHeader);
}

export function connectAdapter({ routes, fallback, logger, ...options }: ConnectAdapterOptions): NodeHandler {
  const router = createConnectRouter(options);
  routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return (request, response) => {
    const handler = handlers.get(request.url?.split('?', 1)[0] ?? '');
    if (handler === undefined) return fallback(request, response);
    const { methodKind, name } = handler.method;
    const values = methodKind === 'server_streaming' ? createContextValues().set(SEND_HEADERS, (headers) => writeHeaders(response, headers)) : undefined;
    handler(universalRequestFromNodeRequest(request, response, undefined, values))
      .then((answer) => universalResponseToNodeResponse(answer, response))
      .catch((error: unknown) => {
        const { code, rawMessage } = ConnectError.from(error);
        // Aborted: the caller has gone.
        if (code !== Code.Aborted) logger.warn({ method: name, error: rawMessage }, 'an answer could not be written');
      });
  };
}

function writeHeaders(response: NodeResponse, headers: Headers): void {
  if (response.headersSent || response.destroyed) return;
  if ('stream' in response) response.writeHead(OK, Object.fromEntries(headers));
  else {
    response.writeHead(OK, Object.fromEntries(headers));
    // With HTTP/1 they wait for the first bytes otherwise.
    response.flushHeaders();
  }
  // connect-node writes them before the first message, and again is an error.
  Object.assign(response, { writeHead: () => response });
}
