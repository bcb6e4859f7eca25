import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { modelFixtureDirectory } from "./model-fixtures.js";

/** Writes a tokenizer for which the text "5 0 17" is the tokens 5, 0 and 17, and adds none. */
export async function writeNumberTokenizer(directory: string, vocabSize: number): Promise<void> {
  const vocab = Object.fromEntries(Array.from({ length: vocabSize }, (_, id) => [String(id), id]));
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "WhitespaceSplit" },
    post_processor: null,
    decoder: null,
    model: { type: "WordLevel", vocab, unk_token: "0" },
  };
  await writeFile(join(directory, "tokenizer.json"), JSON.stringify(tokenizer));
}

/** Writes a byte-level BPE tokenizer that joins nothing: a token is a byte, as far as the vocabulary goes. */
export async function writeByteTokenizer(directory: string, vocabSize: number): Promise<void> {
  // Bytes that print are themselves in GPT-2's alphabet.
  const printed = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  const tokens = [...printed, "\u0120", "\u010a"];
  const vocab = Object.fromEntries(
    Array.from({ length: vocabSize }, (_, id) => [tokens[id] ?? `unused${id}`, id]),
  );
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const model = { type: "BPE", vocab, merges: [], fuse_unk: false, byte_fallback: false };
  const tokenizer = {
    ...{ version: "1.0", truncation: null, padding: null, added_tokens: [], normalizer: null },
    ...{ pre_tokenizer: level, post_processor: null, decoder: level, model },
  };
  await writeFile(join(directory, "tokenizer.json"), JSON.stringify(tokenizer));
}

/** A model of the fixtures, which have no tokenizer, with one of numbers. */
export async function copyFixtureWithTokenizer(name: string, directory: string): Promise<void> {
  await cp(modelFixtureDirectory(name), directory, { recursive: true });
  await writeNumberTokenizer(directory, 512);
}
