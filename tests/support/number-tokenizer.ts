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

/** A model of the fixtures, which have no tokenizer, with one of numbers. */
export async function copyFixtureWithTokenizer(name: string, directory: string): Promise<void> {
  await cp(modelFixtureDirectory(name), directory, { recursive: true });
  await writeNumberTokenizer(directory, 512);
}
