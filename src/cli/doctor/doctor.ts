/**
 * doctor: looks at the set-up from outside and within, and says what is wrong and what to do. It changes nothing; its pings
 * wake the queues of the appservices that answer.
 */
import type { CommandContext } from '../context.ts';
import { printJson } from '../context.ts';
import { coloured, EXIT, plainLine } from '../terminal.ts';
import type { ExitCode, Terminal } from '../terminal.ts';
import type { Check, Facts, Finding } from './facts.ts';
import { INGRESS_CHECKS } from './ingress-checks.ts';
import { LOCAL_CHECKS } from './local-checks.ts';
import { RUNNING_CHECKS } from './running-checks.ts';

export const CHECKS: readonly Check[] = [...LOCAL_CHECKS, ...INGRESS_CHECKS, ...RUNNING_CHECKS];

/** Errors first, in the order of the checks. */
export function diagnose(facts: Facts): Finding[] {
  const findings = CHECKS.flatMap(({ code, find }) => find(facts).map((found) => ({ code, ...found })));
  return [...findings.filter(({ severity }) => severity === 'error'), ...findings.filter(({ severity }) => severity === 'warning')];
}

export function report(context: CommandContext, findings: readonly Finding[]): ExitCode {
  const { terminal } = context;
  if (context.json) printJson(context, { checks: CHECKS.length, findings });
  else if (findings.length === 0) terminal.out(`${coloured(terminal, 'green', '✔')} ${CHECKS.length} checks found nothing wrong\n`);
  else {
    for (const finding of findings) terminal.out(`${paragraph(finding, terminal)}\n`);
    const errors = findings.filter(({ severity }) => severity === 'error').length;
    terminal.out(`${CHECKS.length} checks: ${errors} errors, ${findings.length - errors} warnings\n`);
  }
  return findings.length === 0 ? EXIT.ok : EXIT.problems;
}

function paragraph({ code, severity, subject, message, advice }: Finding, terminal: Terminal): string {
  const mark = severity === 'error' ? coloured(terminal, 'red', '✖') : coloured(terminal, 'yellow', '!');
  return `${mark} ${coloured(terminal, 'bold', code)}  ${plainLine(subject)}\n  ${plainLine(message)}\n  → ${plainLine(advice)}\n`;
}
