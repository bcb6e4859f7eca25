import { tmpdir } from "node:os";
import { LockstepError } from "#lib/core/errors/index";
import { type BadRowPolicy, BadRows } from "./bad-rows.js";
import { ContentNumbers } from "./content-numbers.js";
import { checkSplit, splitContents } from "./documents.js";
import { contentOf, type DataSource, readExamples, refuseEmpty } from "./examples.js";
import type { LabelledExample } from "./formats/index.js";
import { NumberList } from "./number-list.js";
import { checkSequenceLength } from "./pack.js";
import { TokenStore } from "./token-store.js";
import type { Tokenizer } from "./tokenizer.js";

/** Examples tokenised at a time, on the tokenizer's threads. */
const examplesPerBatch = 256;
/** Named in an error that lists labels. */
const maxListedLabels = 20;

export interface ClassificationSpec {
  readonly train: readonly DataSource[];
  readonly validation?: readonly DataSource[];
  /** Share of the texts, or their number, that validates where there are no sources. @default 0.05 */
  readonly validationFraction?: number;
  /** @default "error" */
  readonly onBadRow?: BadRowPolicy;
}

export interface ClassificationOptions {
  readonly tokenizer: Tokenizer;
  /** Tokens that a row holds at most, [CLS] and [SEP] included. */
  readonly sequenceLength: number;
  readonly vocabSize: number;
  readonly maxSequenceLength: number;
  readonly seed: number;
  /** @default the system's temporary directory */
  readonly spillDirectory?: string;
}

/** Rows x sequence length, row-major; rows past the given ones are padding with the label -100. */
export interface LabelledBatch {
  readonly numRows: number;
  readonly tokens: Int32Array;
  /** 1 for the tokens of a row, 0 for padding: the segments of a model's inputs. */
  readonly segments: Int32Array;
  /** 1 for the second text of a pair. */
  readonly tokenTypes: Int32Array;
  /** A class a row. */
  readonly labels: Int32Array;
}

export interface LabelledRows {
  readonly numRows: number;
  readonly numTokens: number;
  readonly truncatedExamples: number;
  lengthOf(row: number): number;
  labelOf(row: number): number;
  /** @param rows at most `numRows` */
  batch(rows: ArrayLike<number>, numRows: number): LabelledBatch;
}

export interface ClassificationDataset {
  /** Names of the classes, by number: `id2label` of a config.json. */
  readonly labels: readonly string[];
  readonly train: LabelledRows;
  readonly validation: LabelledRows | undefined;
  readonly rejectedRows: number;
  readonly listedRejections: readonly string[];
  readonly close: () => void;
}

/**
 * Texts, or pairs of texts, with a class each. Names of classes are numbered in their sorted order, as
 * the examples of transformers number them; labels that are whole numbers are the classes' numbers.
 * Only the labels of the training side count.
 *
 * @throws E_SEQUENCE_LENGTH, E_DATASET_SPLIT, E_DATASET_EMPTY, E_TOKEN_OUT_OF_VOCABULARY,
 *   E_DATA_TOO_MANY_BAD_ROWS, what {@link readExamples} throws; as a bad row E_LABEL_UNSEEN
 */
export async function prepareClassification(
  spec: ClassificationSpec,
  options: ClassificationOptions,
): Promise<ClassificationDataset> {
  const { sequenceLength, seed } = options;
  const { validation = [], validationFraction: fraction = 0.05 } = spec;
  checkSequenceLength(sequenceLength, options.maxSequenceLength);
  checkSplit(fraction);
  const badRows = new BadRows(spec.onBadRow ?? "error");
  const store = new TokenStore(options.spillDirectory ?? tmpdir());
  try {
    const table = new LabelledTable(store, options, badRows);
    await table.read(spec.train);
    let isValidation: (row: number) => boolean;
    if (validation.length > 0) {
      const numTrain = table.length;
      await table.read(validation);
      refuseEmpty(table.length - numTrain, "validation", validation);
      isValidation = (row) => row >= numTrain;
    } else {
      const validates = splitContents(table.numContents, { fraction, seed });
      isValidation = (row) => validates.has(table.contents.values[row] ?? -1);
    }
    const rowsWhere = (wanted: boolean): number[] =>
      Array.from({ length: table.length }, (_, row) => row).filter(
        (row) => isValidation(row) === wanted,
      );
    const trained = rowsWhere(false);
    refuseEmpty(trained.length, "train", spec.train);
    const labels = table.classesOf(trained);
    const validated = table.withKnownLabels(rowsWhere(true), labels);
    badRows.checkShare(table.length - table.numUnseen + badRows.count);
    return {
      labels,
      train: table.rows(trained, labels),
      validation: validated.length === 0 ? undefined : table.rows(validated, labels),
      rejectedRows: badRows.count,
      listedRejections: badRows.listed,
      close: () => store.close(),
    };
  } catch (error) {
    store.close();
    throw error;
  }
}

/** Examples as they were read: tokens in a store, those of second texts as their complement. */
class LabelledTable {
  readonly #store: TokenStore;
  readonly #options: ClassificationOptions;
  readonly #badRows: BadRows;
  readonly #starts = NumberList.ofFloat64();
  readonly #lengths = NumberList.ofInt32();
  readonly #truncated = NumberList.ofInt32();
  readonly #labels: (string | number)[] = [];
  readonly #places: string[] = [];
  readonly #contents = new ContentNumbers();
  readonly contents = NumberList.ofInt32();
  numUnseen = 0;

  constructor(store: TokenStore, options: ClassificationOptions, badRows: BadRows) {
    this.#store = store;
    this.#options = options;
    this.#badRows = badRows;
  }

  get length(): number {
    return this.#labels.length;
  }

  get numContents(): number {
    return this.#contents.size;
  }

  async read(sources: readonly DataSource[]): Promise<void> {
    let waiting: { place: string; example: LabelledExample }[] = [];
    const flush = async (): Promise<void> => {
      await this.#encode(waiting);
      waiting = [];
    };
    for (const source of sources) {
      const labelled: DataSource = { format: "classification", ...source };
      for await (const { place, example } of readExamples(labelled, this.#badRows)) {
        if (example.kind !== "labelled") {
          const problem = "it has no label";
          const facts = { place, format: "classification", problem };
          this.#badRows.reject(new LockstepError("E_DATA_ROW_FORMAT", facts));
        } else if (waiting.push({ place, example }) === examplesPerBatch) await flush();
      }
    }
    await flush();
  }

  async #encode(
    batch: readonly { readonly place: string; readonly example: LabelledExample }[],
  ): Promise<void> {
    const { tokenizer, sequenceLength, vocabSize } = this.#options;
    const encoded = await Promise.all(
      batch.map(({ example: { text, pair } }) => tokenizer.encodePair(text, pair, sequenceLength)),
    );
    for (const [i, { place, example }] of batch.entries()) {
      const { ids = new Int32Array(0), typeIds, truncatedTokens = 0 } = encoded[i] ?? {};
      const tokenId = ids.find((id) => id >= vocabSize);
      if (tokenId !== undefined) {
        throw new LockstepError("E_TOKEN_OUT_OF_VOCABULARY", {
          document: place,
          tokenId,
          vocabSize,
        });
      }
      this.#starts.push(this.#store.append(ids.map((id, j) => (typeIds?.[j] === 1 ? ~id : id))));
      this.#lengths.push(ids.length);
      this.#truncated.push(truncatedTokens > 0 ? 1 : 0);
      this.#labels.push(example.label);
      this.#places.push(place);
      // The same text with another label is still the same text.
      this.contents.push(
        this.#contents.numberOf(contentOf({ place, example: { ...example, label: 0 } })),
      );
    }
  }

  /** Names of the classes of some rows, by number. @throws E_DATA_ROW_FORMAT */
  classesOf(rows: readonly number[]): string[] {
    const found = new Set(rows.map((row) => String(this.#labels[row])));
    // A table of text holds numbers as text.
    if ([...found].every((label) => /^(0|[1-9]\d*)$/.test(label))) {
      const numClasses = 1 + [...found].reduce((most, label) => Math.max(most, Number(label)), 0);
      if (found.size < numClasses) {
        const missing = Array.from({ length: numClasses }, (_, i) => String(i)).find(
          (label) => !found.has(label),
        );
        throw new LockstepError("E_DATA_ROW_FORMAT", {
          place: "training",
          format: "classification",
          problem: `labels go up to ${numClasses - 1}, and no row has the label ${missing}`,
        });
      }
      return Array.from({ length: numClasses }, (_, i) => `LABEL_${i}`);
    }
    const index = rows.find((row) => typeof this.#labels[row] === "number");
    if (index !== undefined) {
      throw new LockstepError("E_DATA_ROW_FORMAT", {
        place: this.#places[index] ?? "",
        format: "classification",
        problem: `the label ${this.#labels[index]} is neither a name nor a class's number`,
      });
    }
    return [...found].sort((a, b) => (a < b ? -1 : 1));
  }

  /** The rows whose label is one of the classes; each other one is a bad row. */
  withKnownLabels(rows: readonly number[], labels: readonly string[]): number[] {
    return rows.filter((row) => {
      if (this.#classOf(row, labels) >= 0) return true;
      this.#badRows.reject(
        new LockstepError("E_LABEL_UNSEEN", {
          place: this.#places[row] ?? "",
          label: String(this.#labels[row]),
          known: labels.slice(0, maxListedLabels),
        }),
      );
      this.numUnseen++;
      return false;
    });
  }

  #classOf(row: number, labels: readonly string[]): number {
    const label = String(this.#labels[row]);
    const byName = labels.indexOf(label);
    return byName >= 0 ? byName : labels.indexOf(`LABEL_${label}`);
  }

  rows(rows: readonly number[], labels: readonly string[]): LabelledRows {
    const { sequenceLength } = this.#options;
    const lengths = this.#lengths.values;
    const truncated = this.#truncated.values;
    const lengthOf = (row: number): number => lengths[rows[row] ?? -1] ?? 0;
    const labelOf = (row: number): number => this.#classOf(rows[row] ?? -1, labels);
    return {
      numRows: rows.length,
      numTokens: rows.reduce((sum, _, row) => sum + lengthOf(row), 0),
      truncatedExamples: rows.reduce((sum, row) => sum + (truncated[row] ?? 0), 0),
      lengthOf,
      labelOf,
      batch: (indices, numRows) => {
        const array = (): Int32Array => new Int32Array(numRows * sequenceLength);
        const batch = { tokens: array(), segments: array(), tokenTypes: array() };
        const labelsOfRows = new Int32Array(numRows).fill(-100);
        for (let i = 0; i < indices.length; i++) {
          const row = indices[i] ?? 0;
          const start = i * sequenceLength;
          const end = start + lengthOf(row);
          const tokens = batch.tokens.subarray(start, end);
          this.#store.read(this.#starts.values[rows[row] ?? 0] ?? 0, tokens);
          batch.segments.fill(1, start, end);
          for (let j = 0; j < tokens.length; j++) {
            const value = tokens[j] ?? 0;
            if (value >= 0) continue;
            tokens[j] = ~value;
            batch.tokenTypes[start + j] = 1;
          }
          labelsOfRows[i] = labelOf(row);
        }
        return { numRows, ...batch, labels: labelsOfRows };
      },
    };
  }
}
