import { findLoneSurrogate } from "#lib/core/well-formed";
import { LockstepError } from "#lib/core/errors/index";
import type { SourcedValue } from "./flags.js";

/** Where the keys of a configuration were given, kept beside it: messages of later checks name it. */
const places = new WeakMap<object, ReadonlyMap<string, string>>();

export function keepPlaces(config: object, given: ReadonlyMap<string, SourcedValue>): void {
  places.set(config, new Map([...given].map(([key, { where }]) => [key, where])));
}

/** Hands the places of a configuration on to one that is made of it. */
export function passPlaces(from: object, to: object): void {
  const known = places.get(from);
  if (known !== undefined) places.set(to, known);
}

/** "file:line" or "flag --key" of a key; "" where nobody gave it. */
export const placeOf = (config: object, key: string): string => places.get(config)?.get(key) ?? "";

/** @throws E_CONFIG_INVALID for a text with half of a character, which YAML's "\ud83d" gives */
export function refuseHalfCharacters(given: ReadonlyMap<string, SourcedValue>): void {
  for (const [key, { value, where }] of given) {
    const found = findLoneSurrogate(value);
    if (found === undefined) continue;
    throw new LockstepError("E_CONFIG_INVALID", {
      key: found.path === "" ? key : `${key}.${found.path}`,
      expected: "text of whole characters",
      got: `${found.code} alone, half of a surrogate pair`,
      where,
    });
  }
}
