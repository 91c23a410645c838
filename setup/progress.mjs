// What a person sees while something takes long. Everything goes to standard error: standard output belongs to the
// command that runs afterwards. Nothing is printed while there is nothing to do.

const TICK_MS = 1000;
const LINE_EVERY_S = 20;

/** Runs `work` and shows what it is and how long it has been going on: one living line on a terminal, else a line now and then. */
export async function step(title, work) {
  const startedMs = Date.now();
  const live = process.stderr.isTTY === true;
  process.stderr.write(live ? `» ${title} …` : `» ${title} …\n`);
  const timer = setInterval(() => {
    const s = Math.round((Date.now() - startedMs) / 1000);
    if (live) process.stderr.write(`\r» ${title} … ${s} s`);
    else if (s % LINE_EVERY_S === 0) process.stderr.write(`  … ${s} s\n`);
  }, TICK_MS);
  try {
    const result = await work();
    finish('✔');
    return result;
  } catch (error) {
    finish('✖');
    throw error;
  } finally {
    clearInterval(timer);
  }

  function finish(mark) {
    const s = ((Date.now() - startedMs) / 1000).toFixed(1);
    process.stderr.write(live ? `\r${mark} ${title} (${s} s)   \n` : `${mark} ${title} (${s} s)\n`);
  }
}

export function say(line) {
  process.stderr.write(`${line}\n`);
}

/** A set-up that cannot go on, in words for the person in front of it: what is wrong and what to do. */
export class SetupError extends Error {}
