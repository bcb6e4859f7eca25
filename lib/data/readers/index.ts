import { extname } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import type { BadRows } from "#lib/data/bad-rows";
import { readTable } from "./csv.js";
import { readJson } from "./json.js";
import { readJsonLines } from "./jsonl.js";
import { readParquet } from "./parquet.js";
import { readPlainText } from "./plain-text.js";
import type { RawRow, RowReader } from "./row.js";

export type { RawRow } from "./row.js";
export { dataFiles } from "./sources.js";

const readers: Readonly<Record<string, RowReader>> = Object.freeze({
  ".txt": readPlainText,
  ".jsonl": readJsonLines,
  ".json": readJson,
  ".csv": (file, badRows) => readTable(file, badRows, ","),
  ".tsv": (file, badRows) => readTable(file, badRows, "\t"),
  ".parquet": readParquet,
});

/** Formats that are read as a stream of bytes, so that the stream may be decompressed first. */
const compressible: readonly string[] = [".jsonl", ".json", ".csv", ".tsv"];

export const dataExtensions: readonly string[] = Object.freeze([
  ...Object.keys(readers),
  ...compressible.map((extension) => `${extension}.gz`),
]);

export function dataExtension(file: string): string {
  const last = extname(file);
  return last === ".gz" ? `${extname(file.slice(0, -last.length))}${last}` : last;
}

/** The rows of one file, read as a stream. @throws E_DATASET_FORMAT, and what its reader throws */
export function readRows(file: string, badRows: BadRows): AsyncGenerator<RawRow> {
  const extension = dataExtension(file);
  const reader = readers[extension.replace(/\.gz$/, "")];
  if (reader === undefined || !dataExtensions.includes(extension)) {
    throw new LockstepError("E_DATASET_FORMAT", { file, known: dataExtensions });
  }
  return reader(file, badRows);
}
