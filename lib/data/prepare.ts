import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { cpuCount } from "#lib/core/cpu-count";
import { LockstepError } from "#lib/core/errors/index";
import type { Classes, LabelTable } from "#lib/core/labels";
import { type BadExamplePolicy, BadExamples } from "./bad-examples.js";
import { packBestFit } from "./best-fit.js";
import { checkSplit, splitContents, splitLoneDocument } from "./documents.js";
import { ExampleEncoder } from "./encode-stream.js";
import { type DataSource, readExamples, refuseEmpty, sourceFiles } from "./examples.js";
import { NumberList } from "./number-list.js";
import type { DataObserver } from "./observer.js";
import { labelledLength, labelledRows } from "./labelled-rows.js";
import { LabelReading, type LabelReaderOf } from "./label-reading.js";
import { checkSequenceLength } from "./sequence-length.js";
import { wrappedRows, type Examples, exampleRows, type TracedRows } from "./rows.js";
import { TokenStore } from "./token-store.js";
import type { Tokenizer } from "./tokenizer.js";

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
  /** Who reads the labels of rows, by the first of them; absent: a row with a label is refused. */
  readonly labelReaderOf?: LabelReaderOf;
  /** Names of the classes that the model has, by number. */
  readonly knownLabels?: readonly string[];
  /** Where tokens go that memory should not hold. @default the system's temporary directory */
  readonly spillDirectory?: string;
  /** Characters that are tokenised. */
  readonly onProgress?: (numCharacters: number) => void;
  readonly observer?: DataObserver;
}

/** What became of one side's examples. */
export interface PreparationReport {
  readonly numExamples: number;
  /** Separators included, before anything is cut or dropped. */
  readonly numTokens: number;
  readonly numRows: number;
  /** Tokens in the rows, without padding. */
  readonly rowTokens: number;
  readonly droppedTokens: number;
  /** Targets of one pass over all rows. */
  readonly supervisedTokens: number;
  /** Examples longer than a row, and what was cut off them. Texts that are laid end to end are never cut. */
  readonly truncatedExamples: number;
  readonly truncatedTokens: number;
}

interface PreparedRows {
  readonly rows: TracedRows;
  /** Which examples the rows are made of, among those of both sides in the order of reading. */
  readonly examples: Int32Array;
  readonly report: PreparationReport;
}

export interface PreparedDataset {
  readonly train: PreparedRows;
  readonly validation: PreparedRows | undefined;
  /** How rows came about: "wrapped" texts, one example a row ("padded"), several ("packed"), or texts with a class each. */
  readonly layout: "wrapped" | "padded" | "packed" | "labelled";
  /** Whether most examples are conversations, which the chat template renders. */
  readonly isChat: boolean;
  /** Of a labelled data set. */
  readonly classes: Classes | undefined;
  /** What was read in which way, and what was not: lines for a person. */
  readonly notes: readonly string[];
  readonly rejectedExamples: number;
  /** Texts of blanks alone, which are left out: how many, and the place of the first. */
  readonly blankTexts: { readonly count: number; readonly first: string };
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
  const { validation = [], validationFraction: fraction = 0.05 } = spec;
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
    const notes = new Set<string>();
    const tell = (line: string): void => void notes.add(line);
    const read = async (purpose: "train" | "validation"): Promise<void> => {
      for (const source of purpose === "train" ? spec.train : validation) {
        const placed = readExamples(source, badExamples, {
          ...{ purpose, tell, observer },
          readLabel: labels.read,
        });
        for await (const each of placed) await encoder.add(each);
      }
    };
    // What cannot be read at all is said before anything is read for long.
    const [first, ...more] = await filesOfBoth(spec.train, validation);
    if (first !== undefined) {
      const others = more.length === 0 ? "" : ` (and ${more.length} more files)`;
      tell(`${first} is both trained on and validated on${others}`);
    }
    await read("train");
    let isValidation: (example: number) => boolean;
    const { lone } = encoder;
    if (validation.length > 0) {
      await encoder.flush();
      const numTrain = encoder.starts.length;
      await read("validation");
      await encoder.flush();
      isValidation = (example) => example >= numTrain;
      refuseEmpty(encoder.starts.length - numTrain, "validation", validation);
    } else if (lone?.example.kind === "text") {
      // One file is cut in two before it is tokenised, so that each side begins at a line.
      encoder.dropWaiting();
      const sides = splitLoneDocument({ id: lone.place, text: lone.example.text }, { fraction });
      for (const { id, text } of [...sides.train, ...sides.validation]) {
        await encoder.add({ place: id, example: { kind: "text", text }, format: "text" });
      }
      await encoder.flush();
      isValidation = (example) => example >= sides.train.length;
    } else {
      await encoder.flush();
      const { numContents, numExamples } = encoder;
      const validates = splitContents(numContents, { fraction, seed: options.seed });
      if (fraction > 0 && numContents === 1) {
        const rows = numExamples === 1 ? "there is one row" : `all ${numExamples} rows are equal`;
        tell(`nothing is kept for validation: ${rows}, and equal rows stay on one side`);
      }
      const contents = encoder.contents.values;
      isValidation = (example) => validates.has(contents[example] ?? -1);
    }
    encoder.releaseContents();
    const classes = encoder.isLabelled
      ? classesOf(encoder, labels.table, isValidation, options.knownLabels)
      : undefined;
    const isText = encoder.numTexts === encoder.starts.length;
    const layout =
      classes !== undefined
        ? "labelled"
        : isText && options.packing !== false
          ? "wrapped"
          : options.packing === true
            ? "packed"
            : "padded";
    const supervised = encoder.supervised.values;
    /** A row of its own needs a second token; laid end to end, the next text gives it. */
    const isLearnt = (example: number): boolean => {
      if (layout === "wrapped" || (supervised[example] ?? 0) > 0) return true;
      const facts = { place: `example ${example + 1}`, numTokens: 1, maxLength: sequenceLength };
      badExamples.reject(new LockstepError("E_DATA_NOTHING_SUPERVISED", facts));
      encoder.numRejected++;
      return false;
    };
    const labelNumbers = encoder.labels.values;
    const isKept = (example: number): boolean => {
      const label = labelNumbers[example];
      if (classes === undefined || label === undefined || classes.targetsOf(label) !== undefined) {
        return true;
      }
      badExamples.reject(labels.table.unseen(label, classes));
      encoder.numRejected++;
      return false;
    };
    const selected = {
      train: selectExamples(encoder, (i) => !isValidation(i) && isLearnt(i)),
      validation: selectExamples(encoder, (i) => isValidation(i) && isLearnt(i) && isKept(i)),
    };
    badExamples.checkShare(encoder.numExamples - encoder.numRejected + badExamples.count);

    const labelledOptions = {
      sequenceLength: labelledLength(Object.values(selected), sequenceLength),
      hasTokenTypes: encoder.hasPairs && options.usesTokenTypes === true,
      paddingTokenId: options.paddingTokenId ?? 0,
    };
    const side = (split: "train" | "validation"): PreparedRows | undefined => {
      const examples = selected[split];
      if (split === "train") refuseEmpty(examples.lengths.length, split, spec.train);
      else if (examples.lengths.length === 0) return undefined;
      const maxRows = split === "train" ? options.maxTrainRows : options.maxValidationRows;
      const rows =
        classes === undefined
          ? layOut(store, examples, { layout, sequenceLength, maxRows: maxRows ?? null })
          : labelledRows(store, examples, { ...labelledOptions, classes, maxRows });
      const report = reportOf(examples, rows, { layout, split });
      return { rows, examples: examples.indices, report };
    };
    const train = side("train") as PreparedRows;
    return {
      train,
      validation: side("validation"),
      layout,
      isChat: 2 * encoder.numConversations > encoder.numExamples,
      classes,
      notes: [...notes],
      rejectedExamples: badExamples.count,
      blankTexts: badExamples.blankTexts,
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

/** Files that both sides read. @throws what {@link sourceFiles} throws */
async function filesOfBoth(
  train: readonly DataSource[],
  validation: readonly DataSource[],
): Promise<string[]> {
  const filesOf = async (purpose: "train" | "validation"): Promise<Set<string>> => {
    const sources = purpose === "train" ? train : validation;
    const found = await Promise.all(sources.map((source) => sourceFiles(source, purpose)));
    return new Set(found.flatMap(({ files }) => files.map((file) => resolve(file))));
  };
  const trained = await filesOf("train");
  return [...(await filesOf("validation"))].filter((file) => trained.has(file));
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

/** Examples of one side, with what only labelled ones have: elsewhere those arrays hold zeros. */
interface Selected extends Examples {
  /** Their numbers among the examples of both sides. */
  readonly indices: Int32Array;
  readonly labels: Int32Array;
  readonly cutTokens: Int32Array;
}

function selectExamples(encoder: ExampleEncoder, keep: (example: number) => boolean): Selected {
  const indices = NumberList.ofInt32();
  for (let i = 0; i < encoder.starts.length; i++) if (keep(i)) indices.push(i);
  const starts = new Float64Array(indices.length);
  const lengths = new Int32Array(indices.length);
  const supervised = new Int32Array(indices.length);
  const labels = new Int32Array(indices.length);
  const cutTokens = new Int32Array(indices.length);
  const of = {
    labels: encoder.labels.values,
    cutTokens: encoder.cutTokens.values,
    starts: encoder.starts.values,
    lengths: encoder.lengths.values,
    supervised: encoder.supervised.values,
  };
  for (const [i, example] of indices.values.entries()) {
    starts[i] = of.starts[example] ?? 0;
    lengths[i] = of.lengths[example] ?? 0;
    supervised[i] = of.supervised[example] ?? 0;
    labels[i] = of.labels[example] ?? 0;
    cutTokens[i] = of.cutTokens[example] ?? 0;
  }
  return { indices: indices.values.slice(), starts, lengths, supervised, labels, cutTokens };
}

function layOut(
  store: TokenStore,
  examples: Examples,
  options: { layout: string; sequenceLength: number; maxRows: number | null },
): TracedRows {
  const { layout, sequenceLength, maxRows } = options;
  if (layout === "wrapped") return wrappedRows(store, examples, { sequenceLength, maxRows });
  const lengths = examples.lengths.map((length) => Math.min(length, sequenceLength));
  const bins = layout === "packed" ? packBestFit(lengths, sequenceLength) : null;
  return exampleRows(store, examples, { sequenceLength, bins, maxRows });
}

/** @throws E_DATASET_TOO_SMALL where nothing is learnt of any row */
function reportOf(
  { lengths, cutTokens }: Selected,
  rows: TracedRows,
  { layout, split }: { layout: string; split: string },
): PreparationReport {
  const { sequenceLength, numRows } = rows;
  const numTokens = lengths.reduce((sum, length) => sum + length, 0);
  // What was cut while it was tokenised lies in no store; texts that are laid end to end lose nothing.
  const cut = lengths.map((length, i) =>
    layout === "wrapped" ? 0 : Math.max(0, length - sequenceLength) + (cutTokens[i] ?? 0),
  );
  const tooLong = cut.filter((count) => count > 0);
  let supervisedTokens = 0;
  for (let row = 0; row < numRows; row++) supervisedTokens += rows.lossWeight(row);
  if (supervisedTokens === 0) throw new LockstepError("E_DATASET_TOO_SMALL", { split, numTokens });
  return {
    numExamples: lengths.length,
    numTokens,
    numRows: numRows,
    rowTokens: rows.numTokens,
    droppedTokens: rows.droppedTokens + cutTokens.reduce((sum, count) => sum + count, 0),
    supervisedTokens,
    truncatedExamples: tooLong.length,
    truncatedTokens: tooLong.reduce((sum, count) => sum + count, 0),
  };
}
