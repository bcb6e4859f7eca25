import { existsSync } from "node:fs";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { maxTokenizerFileBytes, readTextFile } from "./files.js";

/** Files of transformers' slow tokenizers, one of which holds the vocabulary. */
const slowVocabularies: readonly (readonly string[])[] = [
  ["vocab.json", "merges.txt"],
  ["vocab.txt"],
  ["tokenizer.model"],
  ["spiece.model"],
  ["sentencepiece.bpe.model"],
];

const has = (directory: string, name: string): boolean => existsSync(join(directory, name));

/** Whether a directory has a tokenizer of its own, in whatever form. */
export function hasTokenizer(directory: string): boolean {
  return ["tokenizer.json", ...slowVocabularies.flat()].some((name) => has(directory, name));
}

/** @throws E_FILE_NOT_FOUND where there is no directory, E_TOKENIZER_MISSING, E_DATA_TOO_LARGE, E_DATA_INVALID_UTF8 */
export async function readTokenizerFile(
  directory: string,
): Promise<{ readonly file: string; readonly text: string }> {
  const file = join(directory, "tokenizer.json");
  if (existsSync(directory) && !existsSync(file)) {
    throw new LockstepError("E_TOKENIZER_MISSING", { directory, problem: whatIsThere(directory) });
  }
  const what = "tokenizer file";
  return { file, text: await readTextFile(file, { what, limitBytes: maxTokenizerFileBytes }) };
}

/** What to do depends on what is there: transformers turns a slow tokenizer into a tokenizer.json. */
function whatIsThere(directory: string): string {
  const found = slowVocabularies.find((names) => names.every((name) => has(directory, name)));
  if (found === undefined) {
    const one = slowVocabularies.flat().filter((name) => has(directory, name));
    const half = one.length === 0 ? "" : `, only ${one.join(" and ")}`;
    return `nor the files of a slow tokenizer (${slowVocabularies.map((names) => names.join(" with ")).join(", ")})${half}; copy the tokenizer's files from where the model came`;
  }
  const python = `from transformers import AutoTokenizer as T; d = ${pythonString(directory)}; T.from_pretrained(d).save_pretrained(d)`;
  const needs = found[0]?.endsWith(".model") === true ? " (with the package sentencepiece)" : "";
  return `but the files of a slow tokenizer, ${found.join(" and ")}, from which transformers makes it${needs}: python3 -c ${shellString(python)}`;
}

/** In single quotes, as the whole stands in double ones. */
const pythonString = (text: string): string =>
  `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

const shellString = (text: string): string => `"${text.replace(/["$`\\]/g, "\\$&")}"`;
