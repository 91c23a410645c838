/** Where an appservice is asked: the same for every request to it. */
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
