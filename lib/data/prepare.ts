import { tmpdir } from "node:os";
import { type BatchField, hasField, marginField } from "#lib/core/batch";
import { cpuCount } from "#lib/core/cpu-count";
import { counted } from "#lib/core/format";
import type { Classes, LabelTable } from "#lib/core/labels";
import { type BadExamplePolicy, BadExamples, type LeftOut } from "./bad-examples.js";
import { checkSplit } from "./documents.js";
import { ExampleEncoder } from "./encode-stream.js";
import { type DataSource, refuseEmpty } from "./examples.js";
import { LabelReading, type LabelReaderOf } from "./label-reading.js";
import { labelledLength, labelledRows } from "./labelled-rows.js";
import { pairedLength, pairedRows } from "./paired-rows.js";
import type { DataObserver } from "./observer.js";
import { layOut, type PreparedRows, reportOf, type RowLayout } from "./prepared-rows.js";
import { readSides } from "./read-sides.js";
import { rowsWithLengths } from "./row-lengths.js";
import { type SelectedExamples, selectSides } from "./selection.js";
import { checkSequenceLength } from "./sequence-length.js";
import { TokenStore } from "./token-store.js";
import type { Tokenizer } from "./tokenizer.js";
import { weightedLabelRows, weightedTokenRows } from "./weighted-rows.js";

/** Where examples come from and how they are divided. */
export interface DatasetSpec {
  readonly train: readonly DataSource[];
  /** Sources that only validate; where there are none, `validationFraction` of the examples does. */
  readonly validation?: readonly DataSource[];
  /** @default 0.05 */
  readonly validationFraction?: number;
  /** @default "error" */
  readonly onBadExample?: BadExamplePolicy;
}

export interface PrepareOptions {
  readonly tokenizer: Tokenizer;
  readonly sequenceLength: number;
  /** The model's vocabulary and context, from its configuration. */
  readonly vocabSize: number;
  readonly maxSequenceLength: number;
  readonly seed: number;
  /**
   * Texts alone are laid end to end and cut into full rows, unless false. Examples of other formats
   * have a row each, unless true: then several share one.
   *
   * @default null
   */
  readonly packing?: boolean | null;
  /** Rows that are kept of each side, spread evenly over all; the tokens of others count as dropped. */
  readonly maxTrainRows?: number | null;
  readonly maxValidationRows?: number | null;
  /** What stands behind the tokens of labelled rows. @default 0 */
  readonly paddingTokenId?: number;
  /** Whether the model tells the texts of a pair apart by token types. @default false */
  readonly usesTokenTypes?: boolean;
  /** Whether batches carry the lengths of their rows. @default false */
  readonly withLengths?: boolean;
  /** Who reads the labels of rows, by the first of them; absent: a row with a label is refused. */
  readonly labelReaderOf?: LabelReaderOf;
  /** What a batch of pairs of answers carries beside the chosen sequences; absent: pairs are refused. */
  readonly pairTargets?: readonly BatchField[];
  /** Names of the classes that the model has, by number. */
  readonly knownLabels?: readonly string[];
  /** Where tokens go that memory should not hold. @default the system's temporary directory */
  readonly spillDirectory?: string;
  /** Characters that are tokenised. */
  readonly onProgress?: (numCharacters: number) => void;
  readonly observer?: DataObserver;
}

export interface PreparedDataset {
  readonly train: PreparedRows;
  readonly validation: PreparedRows | undefined;
  readonly layout: RowLayout;
  /** Whether most examples are conversations, which the chat template renders. */
  readonly isChat: boolean;
  /** Of a labelled data set. */
  readonly classes: Classes | undefined;
  /** What was read in which way, and what was not: lines for a person. */
  readonly notes: readonly string[];
  /** Pairs of answers that say by how much one is to be better. */
  readonly numMargins: number;
  readonly rejectedExamples: number;
  /** Texts of blanks alone, which are left out. */
  readonly blankTexts: LeftOut;
  /** Examples of the weight 0, which are left out. */
  readonly weightless: LeftOut;
  /** Whether examples or their messages count differently, as their rows then say. */
  readonly isWeighted: boolean;
  /** Messages of the first ones. */
  readonly listedRejections: readonly string[];
  /** UTF-8 bytes of text that were tokenised, both sides together. */
  readonly numBytes: number;
  readonly tokenizerSeconds: number;
  /** Threads the tokenizer may have used. */
  readonly tokenizerThreads: number;
  /** Closes the file of tokens; no row can be read after. */
  readonly close: () => void;
}

/**
 * Reads, tokenises, divides and lays out a data set. Files are read as streams and tokens beyond 256 MiB
 * go to a file, so memory does not grow with the data set, but for some bytes an example. Labelled rows
 * are as long as the longest of both sides needs, `sequenceLength` at most; only the labels of the
 * training side count.
 *
 * @throws E_SEQUENCE_LENGTH, E_DATASET_SPLIT, E_DATASET_EMPTY, E_DATASET_TOO_SMALL where nothing is
 *   learnt of any row, E_DATA_TOO_MANY_BAD_ROWS, E_TOKEN_OUT_OF_VOCABULARY, and what {@link readExamples} throws;
 *   as a bad row E_LABEL_UNSEEN
 */
export async function prepareDataset(
  spec: DatasetSpec,
  options: PrepareOptions,
): Promise<PreparedDataset> {
  const { sequenceLength, tokenizer, vocabSize, onProgress, observer = {} } = options;
  const { train: trainSources, validation = [], validationFraction: fraction = 0.05 } = spec;
  checkSequenceLength(sequenceLength, options.maxSequenceLength);
  checkSplit(fraction);
  const badExamples = new BadExamples(spec.onBadExample ?? "error", observer.onRejected);
  const store = new TokenStore(options.spillDirectory ?? tmpdir());
  try {
    const labels = new LabelReading(options.labelReaderOf ?? noLabels);
    const encoder = new ExampleEncoder(store, {
      labels,
      tokenizer,
      vocabSize,
      sequenceLength,
      badExamples,
      observer,
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    const ignoresMargins = !hasField(options.pairTargets ?? [], marginField.name);
    const asRead = (sources: readonly DataSource[]): DataSource[] =>
      sources.map((source) => ({ ...source, ignoresMargins }));
    const notes = new Set<string>();
    const tell = (line: string): void => void notes.add(line);
    const isValidation = await readSides(
      { train: asRead(trainSources), validation: asRead(validation), fraction, seed: options.seed },
      encoder,
      { badExamples, labels, observer, tell },
    );
    encoder.releaseContents();
    const classes = encoder.isLabelled
      ? classesOf(encoder, labels.table, isValidation, options.knownLabels)
      : undefined;
    const layout = layoutOf(encoder, classes, options.packing);
    const selected = selectSides(encoder, isValidation, {
      ...{ sequenceLength, badExamples, isWrapped: layout === "wrapped" },
      labels: classes === undefined ? undefined : { table: labels.table, classes },
    });
    const labelled = {
      sequenceLength: labelledLength(Object.values(selected), sequenceLength),
      hasTokenTypes: encoder.hasPairs && options.usesTokenTypes === true,
      paddingTokenId: options.paddingTokenId ?? 0,
    };
    const pairLength = pairedLength(Object.values(selected), sequenceLength);
    const side = (split: "train" | "validation"): PreparedRows => {
      const examples = selected[split];
      const maxRows = split === "train" ? options.maxTrainRows : options.maxValidationRows;
      if (layout === "paired") {
        const { pairTargets: targets = [], paddingTokenId = 0 } = options;
        const paired = { targets, paddingTokenId, maxRows, sequenceLength: pairLength };
        const pairs = pairedRows(store, examples, paired);
        const report = reportOf(examples, pairs, { layout, split });
        return { rows: pairs, examples: examples.indices, report };
      }
      const made =
        classes === undefined
          ? layOut(store, examples, { layout, sequenceLength, maxRows: maxRows ?? null })
          : labelledRows(store, examples, { ...labelled, classes, maxRows });
      const report = reportOf(examples, made, { layout, split });
      const weighted = weightedRows(store, examples, made);
      const rows = options.withLengths === true ? rowsWithLengths(weighted) : weighted;
      return { rows, examples: examples.indices, report };
    };
    refuseEmpty(selected.train.lengths.length, "train", trainSources);
    return {
      train: side("train"),
      validation: selected.validation.lengths.length === 0 ? undefined : side("validation"),
      layout,
      isChat: 2 * encoder.numConversations > encoder.numExamples,
      classes,
      notes: [...notes, ...pairNotes(encoder)],
      numMargins: encoder.numMargins,
      rejectedExamples: badExamples.count,
      blankTexts: badExamples.blankTexts,
      weightless: badExamples.weightless,
      isWeighted: selected.train.weights !== undefined,
      listedRejections: badExamples.listed,
      numBytes: encoder.numBytes,
      tokenizerSeconds: encoder.seconds,
      tokenizerThreads: Number(process.env.RAYON_NUM_THREADS) || cpuCount(),
      close: () => store.close(),
    };
  } catch (error) {
    store.close();
    throw error;
  }
}

/** The rows, with weights where the examples have some. */
function weightedRows(
  store: TokenStore,
  examples: SelectedExamples,
  rows: PreparedRows["rows"],
): PreparedRows["rows"] {
  const { weights } = examples;
  if (weights === undefined) return rows;
  return rows.targetsOf === undefined
    ? weightedTokenRows(store, examples, weights, rows)
    : weightedLabelRows(weights, rows);
}

function layoutOf(
  encoder: ExampleEncoder,
  classes: Classes | undefined,
  packing: PrepareOptions["packing"],
): RowLayout {
  if (classes !== undefined) return "labelled";
  if (encoder.isPaired) return "paired";
  const isText = encoder.numTexts === encoder.starts.length;
  if (isText && packing !== false) return "wrapped";
  return packing === true ? "packed" : "padded";
}

function pairNotes({ equalPairs: { count, first } }: ExampleEncoder): string[] {
  if (count === 0) return [];
  return [
    `${counted(count, "pair")} with equal answers, the first at ${first}: nothing is learnt of what they prefer`,
  ];
}

const noLabels: LabelReaderOf = () => ({
  read: () => ({ problem: "is read by no objective" }),
  table: () => {
    throw new RangeError("No label was read");
  },
});

/** @throws E_LABELS_INVALID */
function classesOf(
  encoder: ExampleEncoder,
  table: LabelTable,
  isValidation: (example: number) => boolean,
  known: readonly string[] | undefined,
): Classes {
  const trained = encoder.labels.values.filter((_, example) => !isValidation(example));
  return table.classesOf(trained, known);
}
