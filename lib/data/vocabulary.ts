import { LockstepError } from "#lib/core/errors/index";
import type { Tokenizer } from "./tokenizer.js";

/** @throws E_TOKEN_OUT_OF_VOCABULARY for a token that the model has no embedding for */
export function checkVocabulary(
  ids: Int32Array,
  {
    tokenizer,
    vocabSize,
    document,
  }: { tokenizer: Pick<Tokenizer, "tokenOf">; vocabSize: number; document: string },
): void {
  const tokenId = ids.find((id) => id >= vocabSize);
  if (tokenId === undefined) return;
  const token = tokenizer.tokenOf(tokenId) ?? "";
  throw new LockstepError("E_TOKEN_OUT_OF_VOCABULARY", { document, tokenId, token, vocabSize });
}
