import type { ConfigKey } from "./fields.js";
import type { SourcedValue } from "./flags.js";

/** Keys that a file or a flag gave a value, beside the configuration that they became. */
const givenKeys = new WeakMap<object, ReadonlySet<ConfigKey>>();

export function keepGivenKeys(config: object, given: ReadonlyMap<ConfigKey, SourcedValue>): void {
  const keys = [...given].filter(([, { value }]) => (value ?? null) !== null).map(([key]) => key);
  givenKeys.set(config, new Set(keys));
}

/** For a configuration that was made from another one. */
export function copyGivenKeys(from: object, to: object): void {
  const keys = givenKeys.get(from);
  if (keys !== undefined) givenKeys.set(to, keys);
}

/** Whether a person gave the key a value; one that was worked out, or null, is not given. */
export const isGiven = (config: object, key: ConfigKey): boolean =>
  givenKeys.get(config)?.has(key) ?? true;
