/** Looks for secrets in whatever came out, in the forms that text takes on its way. */

/** The secret as it is, in hex, percent-encoded, and in base64 wherever it may stand in the encoded bytes. */
function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const inBase64 = [0, 1, 2].flatMap((before) => {
    // What stands before and after it changes the characters at its edges.
    const skipped = Math.ceil((before * 8) / 6);
    const kept = Math.floor(((before + bytes.byteLength) * 8) / 6);
    const padded = Buffer.concat([Buffer.alloc(before), bytes]);
    return [padded.toString('base64'), padded.toString('base64url')].map((text) => text.slice(skipped, kept));
  });
  return [...new Set([secret, secret.toLowerCase(), encodeURIComponent(secret), bytes.toString('hex'), bytes.toString('utf16le'), ...inBase64])];
}

export class LeakDetector {
  readonly #forms: readonly { readonly name: string; readonly bytes: Buffer }[];
  readonly #seen: { readonly place: string; readonly bytes: Buffer }[] = [];

  /** `secrets` by a name for each, which is what is told of it. */
  constructor(secrets: Readonly<Record<string, string>>) {
    this.#forms = Object.entries(secrets).flatMap(([name, secret]) => formsOf(secret).map((form) => ({ name, bytes: Buffer.from(form) })));
  }

  see(place: string, content: string | Uint8Array): void {
    this.#seen.push({ place, bytes: Buffer.from(content) });
  }

  /** How much was seen in places whose name begins so, in bytes. */
  bytesSeen(place: string): number {
    return this.#seen.filter((one) => one.place.startsWith(place)).reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  }

  /** Each secret with each place where it was. */
  leaks(): string[] {
    const found = this.#seen.flatMap(({ place, bytes }) => this.#forms.filter((form) => bytes.includes(form.bytes)).map(({ name }) => `${name} in ${place}`));
    return [...new Set(found)];
  }
}
