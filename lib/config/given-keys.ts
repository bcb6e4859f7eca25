import type { ConfigKey } from "./fields.js";
import type { SourcedValue } from "./flags.js";

interface Given {
  /** "file:line" or "flag --key". */
  readonly where: string;
  readonly isNull: boolean;
}

/** Keys that a file or a flag gave a value, beside the configuration that they became. */
const givenKeys = new WeakMap<object, ReadonlyMap<ConfigKey, Given>>();

export function keepGivenKeys(config: object, given: ReadonlyMap<ConfigKey, SourcedValue>): void {
  const keys = [...given].map(([key, { value, where }]): [ConfigKey, Given] => [
    key,
    { where, isNull: (value ?? null) === null },
  ]);
  givenKeys.set(config, new Map(keys));
}

/** For a configuration that was made from another one. */
export function copyGivenKeys(from: object, to: object): void {
  const keys = givenKeys.get(from);
  if (keys !== undefined) givenKeys.set(to, keys);
}

/** Whether it is a resolved configuration; a copy with other values was not checked, and is none. */
export const isResolved = (config: unknown): boolean =>
  typeof config === "object" && config !== null && givenKeys.has(config);

/** Whether a person gave the key a value; one that was worked out, or null, is not given. */
export function isGiven(config: object, key: ConfigKey): boolean {
  const keys = givenKeys.get(config);
  return keys === undefined || keys.get(key)?.isNull === false;
}

/** "file:line" or "flag --key" of a key, for messages of later checks; "" where nobody gave it. */
export const placeOf = (config: object, key: ConfigKey): string =>
  givenKeys.get(config)?.get(key)?.where ?? "";

/** The keys that somebody gave, with their places. */
export const givenPlaces = (config: object): ReadonlyMap<ConfigKey, { readonly where: string }> =>
  givenKeys.get(config) ?? new Map();
