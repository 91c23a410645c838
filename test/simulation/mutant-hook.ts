/**
 * Builds one deliberate bug into one file of src, as it is loaded: the shipped code has no switch for it. A fragment that is
 * not there exactly once is refused, so that a mutant does not outlive the code it was made for.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Mutant } from './mutants.ts';

const ROOT = join(import.meta.dirname, '..', '..');

/** The file's text with the bug in it. */
export function mutated({ name, changes }: Mutant, file: string, text: string): string {
  let changed = text;
  for (const change of changes) {
    if (change.file !== file) continue;
    const parts = changed.split(change.find);
    if (parts.length !== 2) throw new Error(`mutant "${name}": ${file} has its fragment ${parts.length - 1} times, not once: ${change.find}`);
    changed = parts.join(change.replace);
  }
  return changed;
}

export function sourceOf(file: string): string {
  return readFileSync(join(ROOT, file), 'utf8');
}

/** From here on what is imported has the bug. To be called before anything of src is loaded. */
export function buildIn(mutant: Mutant): void {
  const urls = new Map(mutant.changes.map(({ file }) => [pathToFileURL(join(ROOT, file)).href, file]));
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context);
      const file = urls.get(url);
      return file === undefined ? loaded : { ...loaded, source: mutated(mutant, file, sourceOf(file)) };
    },
  });
}
