import { LockstepError } from "#lib/core/errors/index";
import type { BadRows } from "./bad-rows.js";
import { builtInDatasets } from "./datasets/index.js";
import {
  type DatasetFormat,
  type Example,
  type FormatOptions,
  parseExample,
  recogniseFormat,
} from "./formats/index.js";
import type { DataObserver } from "./observer.js";
import { dataExtension, dataExtensions, dataFiles, readRows } from "./readers/index.js";

/** One source of examples, with what is known about its rows. */
export interface DataSource extends FormatOptions {
  /** A built-in name ("sotu"), a file, a directory or a pattern. */
  readonly source: string;
  /** Recognised by the first row of each file where it is absent. */
  readonly format?: DatasetFormat;
  /** Rows that are read at most, from the start. */
  readonly maxRows?: number;
}

export interface PlacedExample {
  /** Where it came from, for messages: a file's name, and the line in a file of rows. */
  readonly place: string;
  readonly example: Example;
  /** How its row was read. */
  readonly format?: DatasetFormat;
}

/**
 * The examples of one source, read as a stream. Blank texts are left out.
 *
 * @throws E_DATASET_UNKNOWN, E_DATASET_FORMAT, E_DATA_FORMAT_UNKNOWN, what the readers throw, and what
 *   bad rows are where they end the run
 */
export async function* readExamples(
  source: DataSource,
  badRows: BadRows,
  observer: DataObserver = {},
): AsyncGenerator<PlacedExample> {
  let left = source.maxRows ?? Number.POSITIVE_INFINITY;
  if (Object.hasOwn(builtInDatasets, source.source)) {
    observer.onSource?.(source.source);
    for (const { id, text } of (await builtInDatasets[source.source]?.()) ?? []) {
      if (left-- <= 0) return;
      observer.onRow?.(source.source, "text");
      yield { place: id, example: { kind: "text", text }, format: "text" };
    }
    return;
  }
  const files = await dataFiles(source.source, {
    isData: (name) => dataExtensions.includes(dataExtension(name)),
    known: Object.keys(builtInDatasets),
  });
  for (const file of files) {
    let { format } = source;
    observer.onSource?.(file);
    for await (const row of readRows(file, badRows)) {
      if (left-- <= 0) return;
      format ??= recogniseFormat(row, textFieldOf(source));
      observer.onRow?.(file, format);
      try {
        const example = parseExample(row, format, source);
        if (example.kind === "text" && example.text === "") {
          observer.onBlank?.(file);
          continue;
        }
        yield { place: row.place, example, format };
      } catch (error) {
        badRows.reject(error);
      }
    }
  }
}

const textFieldOf = ({ columns }: DataSource): { textField?: string } =>
  columns?.text === undefined ? {} : { textField: columns.text };

/** What a split tells examples apart by: the same content stays on one side. */
export function contentOf({ place, example }: PlacedExample): string {
  if (example.kind === "text") return example.text;
  try {
    // The same text with another label is still the same text.
    return JSON.stringify(example.kind === "labelled" ? { ...example, label: 0 } : example);
  } catch (cause) {
    // Reading JSON knows no depth, writing it does.
    const facts = { place, format: "JSON", problem: `it cannot be written (${String(cause)})` };
    throw new LockstepError("E_DATA_ROW_FORMAT", facts, { cause });
  }
}

/** @throws E_DATASET_EMPTY */
export function refuseEmpty(
  count: number,
  split: "train" | "validation",
  sources: readonly DataSource[],
): void {
  if (count > 0) return;
  const source = sources.map((each) => each.source).join(", ");
  throw new LockstepError("E_DATASET_EMPTY", { split, source });
}
