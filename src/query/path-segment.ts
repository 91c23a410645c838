/** Everything but the unreserved characters of RFC 3986 is percent-encoded, so that the text is one segment of a path (R120). */
export function pathSegment(identifier: string): string {
  return encodeURIComponent(identifier).replace(/[!'()*]/g, (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`);
}
