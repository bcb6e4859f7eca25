/** A number as it is written; words such as nan and infinity are none. */
export const anyNumber = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** `["a", "b"]` or `[0, 1]` as JSON or Python writes it, in a cell of a table. */
export const listText = /^\s*\[\s*(("[^"]*"|'[^']*'|[-+.\d]+)\s*(,\s*|(?=\])))*\]\s*$/;

/** Whether a label as it stands in a row is a number that is no whole one: no class is called so. */
export function isFraction(label: unknown): boolean {
  const isNumber = typeof label === "string" ? anyNumber.test(label) : typeof label === "number";
  return isNumber && Number.isFinite(Number(label)) && !Number.isInteger(Number(label));
}
