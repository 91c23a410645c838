/** Where an appservice is asked, and how the router shows it who asks: the same for every request to it. */
import type { Registration } from '../appservice/registration.ts';
import type { OutboundTarget } from './http-client.ts';
import { parseOutboundUrl } from './outbound-url.ts';
import type { OutboundUrl } from './outbound-url.ts';

export class AppserviceTargets {
  readonly #urls = new WeakMap<Registration, OutboundUrl | null>();

  /** Null if the registration has no url, or one that cannot be asked. */
  of(serverName: string, registration: Registration): OutboundTarget | null {
    const url = this.#urlOf(registration);
    if (url === null) return null;
    const { ca_file, proxy } = registration.delivery_options;
    return { owner: `${serverName}|${registration.id}`, url, caFile: ca_file ?? null, proxy: proxy ?? null };
  }

  #urlOf(registration: Registration): OutboundUrl | null {
    let url = this.#urls.get(registration);
    if (url === undefined) {
      url = parseOutboundUrl(registration.url ?? '');
      this.#urls.set(registration, url);
    }
    return url;
  }
}

/** A request with a JSON body. */
export function authorized(registration: Registration, path: string): { path: string; headers: Record<string, string> } {
  const { path: shown, headers } = credentialed(registration, path);
  return { path: shown, headers: { 'content-type': 'application/json', ...headers } };
}

/** A request without a body; its path may have a query. The hs_token stands in the header, and in the query too only for an appservice that wants it there (R55, R56). */
export function credentialed({ hs_token, delivery_options: { legacy_auth } }: Registration, path: string): { path: string; headers: Record<string, string> } {
  return {
    path: legacy_auth === 'both' || legacy_auth === 'query_only' ? `${path}${path.includes('?') ? '&' : '?'}access_token=${encodeURIComponent(hs_token)}` : path,
    headers: legacy_auth === 'query_only' ? {} : { authorization: `Bearer ${hs_token}` },
  };
}
