/** The bounds of lists that come in pages. */
import { invalid } from './conversion.ts';

const PAGE_SIZE_DEFAULT = 100;
const PAGE_SIZE_MAX = 1000;
const PAGE_TOKEN_LENGTH_MAX = 1024;

export function pageToken(token: string): string {
  if (token.length > PAGE_TOKEN_LENGTH_MAX) throw invalid('page_token', 'Send the next_page_token of the answer before, or none for the first page.');
  return token;
}

export function pageSize(wanted: number): number {
  if (wanted < 0) throw invalid('page_size', `A page_size is 0 or more; at most ${PAGE_SIZE_MAX} are returned.`);
  return wanted === 0 ? PAGE_SIZE_DEFAULT : Math.min(wanted, PAGE_SIZE_MAX);
}
