/** What the HTTP port answers beside calls: probes, metrics, and a homeserver that speaks the Application Service API. */
import type { connectNodeAdapter } from '@connectrpc/connect-node';
import type { HttpProbes, IngressPort } from './ports.ts';

export interface PageOptions {
  readonly probes: HttpProbes;
  /** Undefined: no homeserver is served. */
  readonly ingress: IngressPort | undefined;
  /** Whether metrics may be read with this `authorization` header. */
  readonly mayReadMetrics: (authorization: string | undefined) => boolean;
}

type PageRequest = Parameters<ReturnType<typeof connectNodeAdapter>>[0];
type PageResponse = Parameters<ReturnType<typeof connectNodeAdapter>>[1];

/** Rejects if what is asked for fails; nothing is answered then. */
export async function answerPage({ probes, ingress, mayReadMetrics }: PageOptions, request: PageRequest, response: PageResponse): Promise<void> {
  const served = ingress?.answer({ method: request.method ?? '', target: request.url ?? '', authorization: request.headers.authorization, body: request.iterator({ destroyOnReturn: false }) }) ?? null;
  if (served !== null) {
    const { status, body } = await served;
    return answerText(response, status, 'application/json', body);
  }
  const path = (request.url ?? '').split('?')[0];
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  if (path === '/healthz' && isRead) return answerText(response, 200, 'application/json', '{"status":"ok"}\n');
  if (path === '/readyz' && isRead) {
    const { ready, detail } = probes.ready();
    return answerText(response, ready ? 200 : 503, 'application/json', `${JSON.stringify({ ready, ...detail })}\n`);
  }
  if (path === '/metrics' && isRead) {
    if (!mayReadMetrics(request.headers.authorization)) {
      return answerText(response, 401, 'text/plain', 'Send "authorization: Bearer TOKEN" with a credential of the role monitor.\n');
    }
    const { contentType, text } = await probes.metrics();
    return answerText(response, 200, contentType, text);
  }
  answerText(response, 404, 'text/plain', 'There is nothing here. See /healthz, /readyz, /metrics and the service matrix.appservice.v1.AppserviceRouter.\n');
}

export function answerText(response: PageResponse, status: number, contentType: string, text: string): void {
  response.statusCode = status;
  response.setHeader('content-type', contentType);
  response.setHeader('x-content-type-options', 'nosniff');
  response.end(text);
}
