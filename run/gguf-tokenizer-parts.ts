import { isRecord } from "#lib/checkpoint/file-reader";
import type { GgufMetadataValue } from "#lib/checkpoint/index";

export type Metadata = Readonly<Record<string, GgufMetadataValue>>;
export type Json = Readonly<Record<string, unknown>>;
/** Throws with what llama.cpp does not know. */
export type Refuse = (problem: string) => never;

export interface GgufToken {
  readonly text: string;
  /** One of tokenType. */
  readonly type: number;
}

/** Pairs of tokens in the order in which they are joined. */
export type Merges = readonly (readonly [string, string])[];

/** What one kind of tokenizers has in a GGUF file, without its tokens. */
export interface KindOfTokenizer {
  /** By key without `tokenizer.ggml.`. */
  readonly metadata: Metadata;
  /** What llama.cpp does otherwise, for a person. */
  readonly warnings: readonly string[];
}

export const text = (value: string): GgufMetadataValue => ({ type: "string", value });
export const texts = (value: readonly string[]): GgufMetadataValue => ({ type: "strings", value });
export const numbers = (
  type: "int32s" | "float32s",
  value: readonly number[],
): GgufMetadataValue => ({ type, value });

/** The parts of a tokenizer's normalizer or pre-tokenizer, one after the other. */
export function partsOf(definition: Json, name: "normalizer" | "pre_tokenizer"): readonly Json[] {
  const value = definition[name];
  if (!isRecord(value)) return [];
  const list = value[name === "normalizer" ? "normalizers" : "pretokenizers"];
  return value["type"] === "Sequence" && Array.isArray(list) ? list.filter(isRecord) : [value];
}

/** Refuses the first part that is none of those that llama.cpp has too. */
export function checkParts(
  parts: readonly Json[],
  isKnown: (part: Json) => boolean,
  refuse: Refuse,
): void {
  const other = parts.find((part) => !isKnown(part));
  if (other === undefined) return;
  refuse(`its tokenizer changes or cuts texts by ${shown(other)} first, which llama.cpp does not`);
}

const shown = (part: Json): string => {
  const { type, pattern, prepend } = part;
  const about = [pattern, prepend]
    .filter((each) => each !== undefined)
    .map((each) => JSON.stringify(each));
  return [JSON.stringify(type), ...about].join(" of ").slice(0, 120);
};
