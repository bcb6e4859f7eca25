import { LockstepError } from "#lib/core/errors/index";
import { findLoneSurrogate } from "#lib/core/well-formed";
import type { SourcedValue } from "./flags.js";

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
