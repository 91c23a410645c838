/** Pages of docs/, as far as tests run what stands in them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What stands under the heading. */
export function sectionOf(page: string, section: string): string {
  const text = readFileSync(join(import.meta.dirname, '..', '..', 'docs', page), 'utf8')
    .split(/^## /m)
    .find((part) => part.startsWith(`${section}\n`));
  if (text === undefined) throw new Error(`docs/${page} has no section "${section}"`);
  return text;
}

/** The section's blocks in this language, `''` for those without one; without the indentation of the list they stand in. */
export function blocksOf(page: string, section: string, language: string): string[] {
  const blocks = [...sectionOf(page, section).matchAll(/^( *)```(\w*)\n(.*?)^\1```$/gms)];
  return blocks.filter(([, , found]) => found === language).map(([, indent = '', , block = '']) => block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''));
}
