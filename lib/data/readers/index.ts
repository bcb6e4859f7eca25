import { extname } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { openRegularFile } from "#lib/core/regular-file";
import type { BadExamples } from "#lib/data/bad-examples";
import { readTable } from "./csv.js";
import { readJson } from "./json.js";
import { readJsonLines } from "./jsonl.js";
import { readParquet } from "./parquet.js";
import { readPlainText } from "./plain-text.js";
import type { RawExample, ExampleReader } from "./raw-example.js";

export type { RawExample } from "./raw-example.js";

const readers: Readonly<Record<string, ExampleReader>> = Object.freeze({
  ".txt": readPlainText,
  ".jsonl": readJsonLines,
  ".json": readJson,
  ".csv": (file, badExamples) => readTable(file, badExamples, ","),
  ".tsv": (file, badExamples) => readTable(file, badExamples, "\t"),
  ".parquet": readParquet,
});

/** Formats that are read as a stream of bytes, so that the stream may be decompressed first. */
const compressible: readonly string[] = [".jsonl", ".json", ".csv", ".tsv"];

export const dataExtensions: readonly string[] = Object.freeze([
  ...Object.keys(readers),
  ...compressible.map((extension) => `${extension}.gz`),
]);

/** The ending that says how a file is read, in small letters. */
export function dataExtension(file: string): string {
  const last = extname(file).toLowerCase();
  const before = last === ".gz" ? extname(file.slice(0, -last.length)).toLowerCase() : "";
  return `${before}${last}`;
}

/** The examples of one file, read as a stream. @throws E_DATASET_FORMAT, and what its reader throws */
export async function* readRawExamples(
  file: string,
  badExamples: BadExamples,
): AsyncGenerator<RawExample> {
  const extension = dataExtension(file);
  const reader = readers[extension.replace(/\.gz$/, "")];
  if (reader === undefined || !dataExtensions.includes(extension)) {
    // A pipe or a device is that before it is a file without an ending.
    await (await openRegularFile(file, "data file")).handle.close();
    throw new LockstepError("E_DATASET_FORMAT", { file, known: dataExtensions });
  }
  yield* reader(file, badExamples);
}
