import { join } from "node:path";
import { isRecord, readOptionalJson } from "./files.js";

/** Special tokens by role, as text; roles that a model lacks are absent. */
export interface SpecialTokens {
  readonly bosToken?: string;
  readonly eosToken?: string;
  readonly padToken?: string;
  readonly unkToken?: string;
  /** From `config.json`; used where the tokenizer's own files name no token. */
  readonly configBosTokenId?: number;
  readonly configEosTokenId?: number;
  /** Tokens that end a generation, from `generation_config.json` or else `config.json`. */
  readonly generationEosTokenIds: readonly number[];
}

/**
 * Reads the special tokens of a model directory: `tokenizer_config.json` first, then
 * `special_tokens_map.json` (written by transformers up to 4), then `config.json`.
 *
 * @param modelDirectory where config.json and generation_config.json are
 */
export async function readSpecialTokens(
  directory: string,
  modelDirectory: string,
): Promise<SpecialTokens> {
  const [tokenizerConfig, tokensMap, config, generationConfig] = await Promise.all(
    [
      join(directory, "tokenizer_config.json"),
      join(directory, "special_tokens_map.json"),
      join(modelDirectory, "config.json"),
      join(modelDirectory, "generation_config.json"),
    ].map(readOptionalJson),
  );
  const named = (key: string): string | undefined =>
    tokenText(tokenizerConfig?.[key]) ?? tokenText(tokensMap?.[key]);
  const configEosTokenIds = tokenIds(config?.eos_token_id);
  const generationIds = tokenIds(generationConfig?.eos_token_id);
  return Object.freeze({
    ...optional("bosToken", named("bos_token")),
    ...optional("eosToken", named("eos_token")),
    ...optional("padToken", named("pad_token")),
    ...optional("unkToken", named("unk_token")),
    ...optional("configBosTokenId", tokenIds(config?.bos_token_id)[0]),
    ...optional("configEosTokenId", configEosTokenIds[0]),
    generationEosTokenIds: generationIds.length > 0 ? generationIds : configEosTokenIds,
  });
}

/** A token is a string, or an object as `AddedToken` is written. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (isRecord(value) && typeof value.content === "string") return value.content;
  return undefined;
}

function tokenIds(value: unknown): number[] {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((id): id is number => Number.isInteger(id) && Number(id) >= 0);
}

function optional<K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Partial<Record<K, V>>);
}
