import { join } from "node:path";
import { contentOf } from "./added-tokens.js";
import { readOptionalJson } from "./files.js";

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
 * The special tokens of a model: those of the tokenizer's own settings, then of `config.json`.
 *
 * @param settings what the tokenizer's files say, one over the other
 * @param modelDirectory where config.json and generation_config.json are
 */
export async function readSpecialTokens(
  settings: Readonly<Record<string, unknown>>,
  modelDirectory: string,
): Promise<SpecialTokens> {
  const [config, generationConfig] = await Promise.all(
    ["config.json", "generation_config.json"].map((name) =>
      readOptionalJson(join(modelDirectory, name)),
    ),
  );
  const named = (key: string): string | undefined => contentOf(settings[key]);
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

function tokenIds(value: unknown): number[] {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((id): id is number => Number.isInteger(id) && Number(id) >= 0);
}

function optional<K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Partial<Record<K, V>>);
}
