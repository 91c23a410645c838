/**
 * What is pure and costly is done once for all seeds of a process: the sets of patterns, which are few, and the reason of an
 * abort, which nobody reads. To be imported before anything is run.
 */
import RE2 from 're2';

const sets = new Map<string, object>();

RE2.Set = new Proxy(RE2.Set, {
  construct(target, args, newTarget): object {
    const key = JSON.stringify(args);
    const known = sets.get(key);
    if (known !== undefined) return known;
    const made: unknown = Reflect.construct(target, args, newTarget);
    if (typeof made !== 'object' || made === null) throw new Error('no set was made');
    sets.set(key, made);
    return made;
  },
});

const ABORTED = new DOMException('aborted', 'AbortError');
const abort = Object.getOwnPropertyDescriptor(AbortController.prototype, 'abort')?.value as (this: AbortController, reason: unknown) => void;

AbortController.prototype.abort = function (reason: unknown = ABORTED): void {
  abort.call(this, reason);
};
