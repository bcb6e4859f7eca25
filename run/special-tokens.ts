import type { ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { Tokenizer } from "#lib/data/index";

/**
 * Refuses special tokens that are not the tokenizer's own: another end token would change what is learnt,
 * a new token the vocabulary. Padding is masked by position, whatever token it is.
 *
 * @param where of the configuration: file and line. @throws E_CONFIG_UNSUPPORTED
 */
export function checkSpecialTokens(
  expected: ResolvedConfig["special_tokens"],
  tokenizer: Tokenizer,
  where = "",
): void {
  const own: Readonly<Record<string, number | null>> = {
    bos_token: tokenizer.bosTokenId,
    eos_token: tokenizer.eosTokenId,
  };
  for (const [name, value] of Object.entries(expected ?? {})) {
    for (const token of typeof value === "string" ? [value] : (value ?? [])) {
      const id = tokenizer.tokenId(token);
      const refuse = (reason: string): never => {
        const key = `special_tokens.${name}`;
        const facts = { key, value: JSON.stringify(token), reason, where };
        throw new LockstepError("E_CONFIG_UNSUPPORTED", facts);
      };
      if (id === null) {
        const place = `${tokenizer.file} and the files beside it have`;
        refuse(`${place} no such token, and the vocabulary keeps its size`);
      }
      if (!Object.hasOwn(own, name) || own[name] === id) continue;
      const ownId = own[name] ?? null;
      const ownName =
        ownId === null ? "none" : (tokenizer.specialTokens.get(ownId) ?? String(ownId));
      refuse(`the tokenizer of ${tokenizer.file} has ${ownName}, which is used`);
    }
  }
}
