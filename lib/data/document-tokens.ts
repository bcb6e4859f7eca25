import { LockstepError } from "#lib/core/errors/index";
import type { Tokenizer } from "./tokenizer.js";

/** @throws E_CHAT_TEMPLATE_SECOND_BOS where a text itself begins with what is put before it */
export function refuseSecondBeginning(
  ids: Int32Array,
  {
    place,
    prefix,
    tokenizer,
  }: { place: string; prefix: readonly number[]; tokenizer: Pick<Tokenizer, "tokenOf"> },
): void {
  const [first] = prefix;
  if (first === undefined || ids[0] !== first) return;
  const token = tokenizer.tokenOf(first) ?? String(first);
  throw new LockstepError("E_CHAT_TEMPLATE_SECOND_BOS", { place, token });
}

/**
 * The tokens of a text as a document: what the tokenizer puts before and behind a text, as in
 * transformers' `tokenizer(text)`, and the separator, which is not written twice.
 *
 * @throws E_CHAT_TEMPLATE_SECOND_BOS
 */
export function documentTokens(ids: Int32Array, place: string, tokenizer: Tokenizer): Int32Array {
  const { prefixTokenIds: prefix, suffixTokenIds: suffix, documentSeparatorTokenId } = tokenizer;
  refuseSecondBeginning(ids, { place, prefix, tokenizer });
  const last = suffix.at(-1) ?? ids.at(-1) ?? prefix.at(-1);
  const separator =
    documentSeparatorTokenId === null || last === documentSeparatorTokenId
      ? []
      : [documentSeparatorTokenId];
  const whole = new Int32Array(prefix.length + ids.length + suffix.length + separator.length);
  whole.set(prefix);
  whole.set(ids, prefix.length);
  whole.set(suffix, prefix.length + ids.length);
  whole.set(separator, whole.length - separator.length);
  return whole;
}
