import { LockstepError } from "#lib/core/errors/index";
import type { LabelReader } from "#lib/core/labels";
import type { BadExamples } from "./bad-examples.js";
import { isBlank } from "./documents.js";
import { refuseHalfCharacters } from "./half-characters.js";
import { builtInDatasets } from "./datasets/index.js";
import {
  type DatasetFormat,
  type Example,
  type FormatOptions,
  LaterColumns,
  exampleWeight,
  parseExample,
  type ExampleReading,
  readingOf,
} from "./formats/index.js";
import { jsonText } from "./jinja/index.js";
import { templateValue } from "./json-data.js";
import type { DataObserver } from "./observer.js";
import { dataExtension, dataExtensions, readRawExamples } from "./readers/index.js";
import { dataFiles, type SourceFiles, type SourceRequest } from "./sources/index.js";

/** One source of examples, with what is known about them. */
export interface DataSource extends FormatOptions {
  /** A built-in name ("sotu"), a file, a directory or a pattern. */
  readonly source: string;
  /** Recognised by the first example of each file where it is absent. */
  readonly format?: DatasetFormat;
  /** Examples that are read at most, from the start. */
  readonly maxExamples?: number;
  /** The split of a directory, where its purpose does not say it. */
  readonly split?: string;
  /** The subset of a directory whose README.md lists several. */
  readonly subset?: string;
}

export interface PlacedExample {
  /** Where it came from, for messages: a file's name, and the line in a file of examples. */
  readonly place: string;
  readonly example: Example;
  /** How it was read. */
  readonly format?: DatasetFormat;
  /** How much it counts in the loss, above 0. @default 1 */
  readonly weight?: number;
}

/** What reading a source needs to know beyond the source. */
interface ReadOptions {
  /** @default "train" */
  readonly purpose?: SourceRequest["purpose"];
  /** Takes a line for a person, once each: what is read in which way. */
  readonly tell?: (line: string) => void;
  readonly observer?: DataObserver;
  /** Reads the labels of rows. @default none, which refuses a row with a label */
  readonly readLabel?: LabelReader["read"];
}

/**
 * The files of a source; none of a built-in data set.
 *
 * @throws E_DATASET_UNKNOWN, E_DATASET_DIRECTORY, E_FILE_UNREADABLE
 */
export async function sourceFiles(
  { source, split, subset }: DataSource,
  purpose: SourceRequest["purpose"],
): Promise<SourceFiles> {
  const known = Object.keys(builtInDatasets);
  if (known.includes(source)) return { files: [], notes: [] };
  return dataFiles(
    { path: source, purpose, split, subset },
    { isData: (name) => dataExtensions.includes(dataExtension(name)), known },
  );
}

/**
 * The examples of one source, read as a stream. Blank texts are left out and counted.
 *
 * @throws E_DATASET_FORMAT, E_DATA_FORMAT_UNKNOWN, E_DATA_COLUMNS, what {@link sourceFiles} and the
 *   readers throw, and what bad examples are where they end the run
 */
export async function* readExamples(
  source: DataSource,
  badExamples: BadExamples,
  { purpose = "train", tell = () => {}, observer = {}, readLabel }: ReadOptions = {},
): AsyncGenerator<PlacedExample> {
  let left = source.maxExamples ?? Number.POSITIVE_INFINITY;
  if (Object.hasOwn(builtInDatasets, source.source)) {
    observer.onSource?.(source.source);
    for (const { id, text } of (await builtInDatasets[source.source]?.()) ?? []) {
      if (left-- <= 0) return;
      observer.onRead?.(source.source, "text");
      yield { place: id, example: { kind: "text", text }, format: "text" };
    }
    return;
  }
  const { files, notes } = await sourceFiles(source, purpose);
  for (const note of notes) tell(note);
  for (const file of files) {
    let reading: ExampleReading | undefined;
    let later: LaterColumns | undefined;
    observer.onSource?.(file);
    for await (const raw of readRawExamples(file, badExamples)) {
      if (left-- <= 0) break;
      if (reading === undefined) {
        reading = readingOf(raw, source);
        if (reading.note !== undefined) tell(reading.note);
        later = new LaterColumns(reading);
      }
      later?.look(raw);
      const { format } = reading;
      observer.onRead?.(file, format);
      try {
        const example = parseExample(raw, format, reading, readLabel);
        refuseHalfCharacters(example, raw.place);
        const weight = exampleWeight(raw, reading);
        if (example.kind === "text" && isBlank(example.text)) {
          badExamples.leaveOutBlank(raw.place);
          observer.onBlank?.(file);
        } else if (weight === 0) badExamples.leaveOutWeightless(raw.place);
        else yield { place: raw.place, example, format, ...(weight === 1 ? {} : { weight }) };
      } catch (error) {
        badExamples.reject(error);
      }
    }
    if (later?.note !== undefined) tell(later.note);
    if (left < 0) return;
  }
}

/** What a split tells examples apart by: the same content stays on one side. */
export function contentOf({ place, example }: PlacedExample): string {
  if (example.kind === "text") return example.text;
  try {
    if (example.kind === "pair") return jsonText(templateValue(example));
    if (example.kind === "conversation") {
      // However much its messages count, it is still the same conversation.
      const { weights: _, ...said } = example;
      return jsonText(templateValue(said));
    }
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
