/**
 * What can be said of a namespace pattern by its text alone.
 */

/** Characters that stand for themselves wherever they appear outside of a group, class or escape. */
const LITERAL = /^\^?([\w@#!:=/~,;%&'"<> -]*)(.?)/s;
const QUANTIFIERS = '*+?{';

/**
 * Text that every identifier begins with that the pattern matches, at most `lengthMax` characters. Often shorter than
 * could be told, and empty where nothing is sure: an alternative, a group, a class or an escape ends it.
 */
export function literalPrefix(regex: string, lengthMax: number): string {
  if (regex.includes('|')) return '';
  const [, literal = '', next = ''] = LITERAL.exec(regex) ?? [];
  const sure = next !== '' && QUANTIFIERS.includes(next) ? literal.slice(0, -1) : literal;
  return sure.slice(0, lengthMax);
}

/** What a Unicode class such as \p{L} comes to, in characters of a plain pattern. */
const UNICODE_CLASS_WEIGHT = 300;

/** Roughly how much work it is to compile the pattern: its length, with repetitions and Unicode classes written out. */
export function patternWeight(regex: string): number {
  let turns = 1;
  for (const [, least, most] of regex.matchAll(/\{(\d{1,4})(?:,(\d{0,4}))?\}/g)) turns += Math.max(Number(least), Number(most ?? 0));
  const classes = regex.match(/\\p/gi)?.length ?? 0;
  return (regex.length + classes * UNICODE_CLASS_WEIGHT) * turns;
}

/** A sentence part on what RE2 refused, by its own error message, and how to write it instead. */
export function explainRefusal(reason: string): string {
  if (/operator: \(\?<?[=!]/.test(reason)) return 'look-around such as (?=…), (?!…) or (?<=…) does not match in linear time; write what should match, or use several namespaces';
  if (/escape sequence: \\[1-9k]/.test(reason) || /operator: \(\?P/.test(reason)) return 'back-references such as \\1 do not match in linear time; write the alternatives out';
  if (/escape sequence: \\Z/.test(reason)) return '\\Z is not known to RE2; write \\z for the end of the identifier';
  if (/operator: \(\?>/.test(reason) || /repetition operator: [*+?}]\+$/.test(reason)) return 'atomic groups (?>…) and possessive repetitions such as a++ are not known to RE2; write (?:…) and a+, which match the same in linear time';
  if (/operator: \(\?#/.test(reason)) return 'comments (?#…) are not known to RE2; leave them out';
  if (/operator: \(\?/.test(reason)) return 'of the groups that begin with (? RE2 knows (?:…), (?P<name>…) and the flags i, m, s and U; write it without the others';
  if (/repetition size/.test(reason)) return 'a repetition has at most 1000 turns, nested ones multiplied, and its bounds ascend; write * or + instead, or smaller bounds';
  if (/too large|could not be compiled/.test(reason)) return 'it is too large once repetitions and character classes are multiplied out; use * or + or smaller bounds';
  const construct = /: (.{1,40})$/su.exec(reason)?.[1];
  const what = reason.split(':')[0]?.trim() ?? '';
  return `RE2 does not take it (${what === '' ? 'syntax error' : what}${construct === undefined ? '' : `, at "${construct}"`}); see the syntax page of RE2 for what it knows`;
}
