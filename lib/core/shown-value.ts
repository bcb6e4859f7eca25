const maxChars = 100;

/**
 * A value of a file as JSON, cut, for a sentence about it; "nothing" where there is none. JavaScript's own JSON throws
 * at a bigint and takes a Map for an empty object.
 */
export function shownValue(value: unknown): string {
  const text =
    JSON.stringify(value, (_key, each: unknown) => {
      if (typeof each === "bigint") return Number(each);
      return each instanceof Map ? Object.fromEntries(each as Map<string, unknown>) : each;
    }) ?? "nothing";
  return text.length <= maxChars ? text : `${text.slice(0, maxChars)}...`;
}
