import { LockstepError } from "#lib/core/errors/index";
import { findLoneSurrogate } from "#lib/core/well-formed";

/**
 * Refuses texts with half of a character, which a tokenizer would read as U+FFFD without a word.
 *
 * @param value a text, or what holds texts. @throws E_DATA_LONE_SURROGATE
 */
export function refuseHalfCharacters(value: unknown, place: string): void {
  const found = findLoneSurrogate(value);
  if (found === undefined) return;
  const { path, code, index } = found;
  const where = path === "" ? "the text" : JSON.stringify(path);
  throw new LockstepError("E_DATA_LONE_SURROGATE", { place, where, code, character: index + 1 });
}
