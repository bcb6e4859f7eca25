import { shownValue } from "#lib/core/shown-value";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { isRecord, readOptionalJson } from "./files.js";

/** A token that stands beside a tokenizer's vocabulary, as `AddedToken` of the tokenizers library. */
export interface AddedTokenForm {
  readonly content: string;
  readonly special: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly singleWord: boolean;
  /** Whether it is looked for in the normalized text. */
  readonly normalized: boolean;
}

/** What a tokenizer's directory says of its tokens beside tokenizer.json. */
export interface TokenizerSettings {
  /** tokenizer_config.json, with special_tokens_map.json over it where that counts. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Tokens that files give an id: of added_tokens_decoder, else of added_tokens.json. */
  readonly declared: readonly DeclaredToken[];
  /** Those of added_tokens.json, also where it does not count. */
  readonly legacy: readonly DeclaredToken[];
}

interface DeclaredToken {
  readonly file: string;
  readonly id: number;
  readonly token: AddedTokenForm;
}

type Settings = Readonly<Record<string, unknown>>;

/** Roles of special tokens in the order in which transformers adds those that are missing. */
const roles = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

/**
 * Reads them as transformers 5 does: where tokenizer_config.json has an `added_tokens_decoder` it stands
 * alone, else special_tokens_map.json is laid over it and added_tokens.json names further tokens.
 *
 * @throws E_TOKENIZER_INVALID
 */
export async function readTokenizerSettings(directory: string): Promise<TokenizerSettings> {
  const [configFile, mapFile, addedFile] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
  ].map((name) => join(directory, name)) as [string, string, string];
  const [config = {}, tokensMap = {}, added = {}] = await Promise.all(
    [configFile, mapFile, addedFile].map(readOptionalJson),
  );
  if (config["split_special_tokens"] === true) {
    const problem =
      "split_special_tokens: true, which takes special tokens in texts apart, is not done";
    throw new LockstepError("E_TOKENIZER_INVALID", { file: configFile, problem });
  }
  const decoder = config["added_tokens_decoder"] ?? undefined;
  const extra = isTruthy(config["extra_special_tokens"])
    ? config["extra_special_tokens"]
    : (config["additional_special_tokens"] ?? config["extra_special_tokens"]);
  const legacyOf = (settings: Settings): DeclaredToken[] => {
    const special = new Set([
      ...roles.flatMap((role) => contentOf(settings[role]) ?? []),
      ...listOf(settings["extra_special_tokens"]).flatMap((token) => contentOf(token) ?? []),
    ]);
    return Object.entries(added).map(([content, id]) => {
      const isSpecial = special.has(content);
      const flags = { lstrip: false, rstrip: false, singleWord: false, normalized: !isSpecial };
      return declare(addedFile, id, { content, special: isSpecial, ...flags });
    });
  };
  if (decoder !== undefined) {
    const settings = { ...config, extra_special_tokens: extra };
    if (!isRecord(decoder)) throw wrongToken(configFile, "added_tokens_decoder", decoder);
    const declared = Object.entries(decoder).map(([id, value]) => {
      const token = formOf(value);
      if (token === undefined || !isRecord(value)) throw wrongToken(configFile, id, value);
      return declare(configFile, Number(id), token);
    });
    return { settings, declared, legacy: legacyOf(settings) };
  }
  const { additional_special_tokens: ofMap, ...map } = tokensMap;
  const settings: Settings = {
    ...config,
    ...map,
    extra_special_tokens: Array.isArray(map["extra_special_tokens"])
      ? [...listOf(extra), ...listOf(map["extra_special_tokens"])]
      : (map["extra_special_tokens"] ?? extra),
  };
  const legacy = legacyOf(settings);
  // transformers takes the old name of the map's list into account later than added_tokens.json.
  const withMap = settings["extra_special_tokens"] === undefined ? ofMap : undefined;
  return {
    settings: withMap === undefined ? settings : { ...settings, extra_special_tokens: withMap },
    declared: legacy,
    legacy,
  };
}

/** Special tokens of the settings: by role, other names that end in `_token`, and the list of further ones. */
function specialTokens(settings: Settings): { named: unknown[]; extra: readonly unknown[] } {
  const extra = settings["extra_special_tokens"];
  const names = Object.keys(settings).filter(
    (key) => key.endsWith("_token") && !roles.includes(key),
  );
  const named = [...roles, ...names].map((key) => settings[key]);
  // A mapping gives further roles.
  return isRecord(extra)
    ? { named: [...named, ...Object.values(extra)], extra: [] }
    : { named, extra: listOf(extra) };
}

/** Contents of every special token that the settings name. */
export function namedSpecialTokens({ settings }: TokenizerSettings): string[] {
  const { named, extra } = specialTokens(settings);
  return [...new Set([...named, ...extra].flatMap((token) => contentOf(token) ?? []))];
}

/**
 * The tokens that transformers' TokenizersBackend gives to the library after tokenizer.json: declared ones
 * that are not there in this form, in the order of their ids, then special tokens that are not there at all.
 *
 * @param own added tokens of tokenizer.json
 */
export function tokensToAdd(
  { settings, declared }: TokenizerSettings,
  own: readonly AddedTokenForm[],
): AddedTokenForm[] {
  const { named, extra } = specialTokens(settings);
  const key = (token: AddedTokenForm): string =>
    JSON.stringify([
      ...[token.content, token.special, token.lstrip, token.rstrip],
      ...[token.singleWord, token.normalized],
    ]);
  const ownKeys = new Set(own.map(key));
  const ownContents = new Set(own.map(({ content }) => content));
  // Where tokenizer.json and a legacy file name the same token, tokenizer.json's form counts.
  const isLegacy = settings["added_tokens_decoder"] === undefined;
  const added = declared
    .filter(({ token }) => !(isLegacy && ownContents.has(token.content)))
    .sort((a, b) => a.id - b.id)
    .map(({ token }) => token)
    .filter((token) => !ownKeys.has(key(token)));
  const contents = new Set([...ownContents, ...added.map(({ content }) => content)]);
  for (const value of [...named, ...extra]) {
    const token = formOf(value, { special: true });
    if (token === undefined || contents.has(token.content)) continue;
    contents.add(token.content);
    added.push(token);
  }
  const namedContents = new Set(named.flatMap((value) => contentOf(value) ?? []));
  return added.map((token) =>
    namedContents.has(token.content) ? { ...token, special: true } : token,
  );
}

/** Added tokens as tokenizer.json lists them. */
export function ownAddedTokens(definition: unknown): AddedTokenForm[] {
  const list: unknown = isRecord(definition) ? definition["added_tokens"] : undefined;
  return listOf(list).flatMap((token) => (isRecord(token) ? (formOf(token) ?? []) : []));
}

/** @param defaults where nothing is said of it */
function formOf(value: unknown, defaults = { special: false }): AddedTokenForm | undefined {
  const content = contentOf(value);
  if (content === undefined) return undefined;
  const flags: Settings = { ...defaults, ...(isRecord(value) ? value : {}) };
  const special = flags["special"] === true;
  const { normalized } = flags;
  return {
    content,
    special,
    lstrip: flags["lstrip"] === true,
    rstrip: flags["rstrip"] === true,
    singleWord: flags["single_word"] === true,
    normalized: typeof normalized === "boolean" ? normalized : !special,
  };
}

/** A token is a string, or an object as `AddedToken` is written. */
export function contentOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (isRecord(value) && typeof value["content"] === "string") return value["content"];
  return undefined;
}

function declare(file: string, id: unknown, token: AddedTokenForm): DeclaredToken {
  if (typeof id === "number" && Number.isSafeInteger(id) && id >= 0) return { file, id, token };
  throw wrongToken(file, token.content, id);
}

function wrongToken(file: string, name: string, value: unknown): LockstepError {
  const problem = `${JSON.stringify(name)} is ${shownValue(value)}, not a token with its id`;
  return new LockstepError("E_TOKENIZER_INVALID", { file, problem });
}

const listOf = (value: unknown): readonly unknown[] =>
  Array.isArray(value) ? (value as unknown[]) : [];

const isTruthy = (value: unknown): boolean =>
  Array.isArray(value) ? value.length > 0 : isRecord(value) && Object.keys(value).length > 0;
