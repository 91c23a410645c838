/** Reading JSON that others wrote: bounded in depth, and never trusted to have a shape. */

export type JsonObject = Readonly<Record<string, unknown>>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value that the text stands for; undefined if it is no JSON, or nests more than so many levels deep. */
export function parsedJson(text: string, levelsMax: number): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return nestsDeeper(text, value, levelsMax) ? undefined : value;
}

/** True if the value of the text nests more than so many levels deep. */
export function nestsDeeper(text: string, value: unknown, levelsMax: number): boolean {
  return typeof value === 'object' && value !== null && mayExceedDepth(text, levelsMax) && exceedsDepth(value, levelsMax);
}

/** False for nearly every text: it has not as many opening brackets as it would take. */
function mayExceedDepth(text: string, levelsMax: number): boolean {
  let brackets = 0;
  for (let at = text.indexOf('{'); at >= 0 && brackets <= levelsMax; at = text.indexOf('{', at + 1)) brackets++;
  for (let at = text.indexOf('['); at >= 0 && brackets <= levelsMax; at = text.indexOf('[', at + 1)) brackets++;
  return brackets > levelsMax;
}

function exceedsDepth(value: object, levels: number): boolean {
  if (levels === 0) return true;
  if (Array.isArray(value)) return value.some((inner: unknown) => typeof inner === 'object' && inner !== null && exceedsDepth(inner, levels - 1));
  for (const key in value) {
    const inner: unknown = Reflect.get(value, key);
    if (typeof inner === 'object' && inner !== null && exceedsDepth(inner, levels - 1)) return true;
  }
  return false;
}
