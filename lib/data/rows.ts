import {
  type Batch,
  type BatchField,
  type FieldArray,
  fieldArray,
  inputFields,
  nextTokenField,
  valuesPerRow,
} from "#lib/core/batch";
import { paddingOf } from "#lib/core/loss-weights";
import { minSequenceLength } from "./sequence-length.js";
import type { TokenStore } from "./token-store.js";

/** Arrays of a batch that a row is written into: its own part of each field. */
interface RowArrays {
  readonly tokens: Int32Array;
  readonly segments?: Int32Array;
  readonly positions?: Int32Array;
  readonly tokenTypes?: Int32Array;
  readonly lengths?: Int32Array;
  /** By name. They hold {@link ignoredTarget} throughout before. */
  readonly targets: Readonly<Record<string, FieldArray>>;
}

/** Rows of one length that batches are gathered from. */
export interface TrainingRows {
  readonly numRows: number;
  readonly sequenceLength: number;
  /** Sequences of this length that a row has. @default 1 */
  readonly sequencesPerRow?: number;
  /** Tokens of the longest of them. @default {@link lengthOf} */
  longestOf?(row: number): number;
  /** Tokens of all rows without padding. */
  readonly numTokens: number;
  /** Tokens that are in no row. */
  readonly droppedTokens: number;
  /** What batches carry for the model, and for the objective. */
  readonly inputs: readonly BatchField[];
  readonly targets: readonly BatchField[];
  /** What stands behind the tokens of a row. @default 0 */
  readonly paddingTokenId?: number;
  /** Tokens of a row without padding. */
  lengthOf(row: number): number;
  /** Supervised tokens of a row, or the sum of their weights; 1 where it has a label, and the objective says how much that counts in the loss. */
  lossWeight(row: number): number;
  /** Of rows with a label: a row's values of the targets. */
  targetsOf?(row: number): Batch["fields"];
  write(row: number, into: RowArrays): void;
}

/** A part of a row that is of one example. */
interface RowPiece {
  /** Among the examples that the rows are made of. */
  readonly example: number;
  /** Place in the row of its first token. */
  readonly offset: number;
  readonly length: number;
  /** Tokens of the example before it: a text that is laid end to end goes on from row to row. */
  readonly before: number;
  /** Tokens that were cut off the example's end. */
  readonly numCut: number;
}

/** Rows that know which examples they are made of. */
export interface TracedRows extends TrainingRows {
  /** In the order in which they stand in the row. */
  piecesOf(row: number): RowPiece[];
  /** The tokens that were cut off an example, at most `limit`; empty where they were not kept. */
  readCut(piece: RowPiece, limit: number): Int32Array;
}

const nextTokens = ({ targets }: RowArrays): FieldArray | undefined => targets[nextTokenField.name];

/** Where each of some pieces of text lies in a store. */
interface Pieces {
  readonly starts: Float64Array;
  readonly lengths: Int32Array;
}

/** Of `count` items, `limit` that are spread evenly over all; all of them without a limit. */
export function spreadEvenly(count: number, limit: number | null | undefined): Uint32Array {
  const kept = limit === null || limit === undefined ? count : Math.min(limit, count);
  return Uint32Array.from({ length: kept }, (_, i) => Math.floor((i * count) / kept));
}

/**
 * Documents laid end to end and cut into rows, as the `group_texts` of Hugging Face's language modelling
 * example does, without laying them out: a row is read from where its pieces are. The remainder is
 * dropped; text of less than a row makes a short one.
 */
export function wrappedRows(
  store: TokenStore,
  pieces: Pieces,
  options: { sequenceLength: number; maxRows?: number | null },
): TracedRows {
  const { sequenceLength } = options;
  const { starts, lengths } = pieces;
  // Where each piece starts in the text that they make together.
  const ends = new Float64Array(lengths.length);
  let total = 0;
  for (let i = 0; i < lengths.length; i++) ends[i] = total += lengths[i] ?? 0;
  const isShort = total >= minSequenceLength && total < sequenceLength;
  const length = isShort ? total : sequenceLength;
  const kept = spreadEvenly(Math.floor(total / length), options.maxRows);
  const piecesOf = (row: number): RowPiece[] => {
    const found: RowPiece[] = [];
    let position = (kept[row] ?? 0) * sequenceLength;
    let example = firstAbove(ends, position);
    for (let offset = 0; offset < length; example++) {
      const end = ends[example] ?? 0;
      const count = Math.min(length - offset, end - position);
      const before = (lengths[example] ?? 0) - (end - position);
      // A text without a token is in no row.
      if (count > 0) found.push({ example, offset, length: count, before, numCut: 0 });
      offset += count;
      position += count;
    }
    return found;
  };
  return {
    numRows: kept.length,
    sequenceLength,
    numTokens: kept.length * length,
    droppedTokens: total - kept.length * length,
    inputs: inputFields(),
    targets: [nextTokenField],
    lengthOf: () => length,
    lossWeight: () => length - 1,
    write(row, into) {
      const tokens = into.tokens.subarray(0, length);
      for (const { example, offset, length: count, before } of piecesOf(row)) {
        store.read((starts[example] ?? 0) + before, tokens.subarray(offset, offset + count));
      }
      nextTokens(into)?.set(tokens.subarray(1));
    },
    piecesOf,
    readCut: () => new Int32Array(0),
  };
}

/** Index of the first value above `value` in ascending values. */
function firstAbove(values: Float64Array, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] ?? 0) > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Examples as a store holds them: tokens that are not learnt as their complement (~id). */
export interface Examples extends Pieces {
  /** Targets of each, of its first `sequenceLength` tokens. */
  readonly supervised: Int32Array;
}

/** What rows hold of their examples, and what of them is in no row. */
export function rowTotals(
  numRows: number,
  lengthOf: (row: number) => number,
  lengths: Int32Array,
): Pick<TrainingRows, "numRows" | "numTokens" | "droppedTokens"> {
  let numTokens = 0;
  for (let row = 0; row < numRows; row++) numTokens += lengthOf(row);
  const allTokens = lengths.reduce((total, length) => total + length, 0);
  return { numRows, numTokens, droppedTokens: allTokens - numTokens };
}

/**
 * Examples cut to the row's length, one a row or several as `bins` tells. No target crosses from one
 * example to the next; where they share rows, segments count examples from 1 (padding is 0) and
 * positions start anew.
 */
export function exampleRows(
  store: TokenStore,
  examples: Examples,
  options: {
    sequenceLength: number;
    bins: readonly Uint32Array[] | null;
    maxRows?: number | null;
  },
): TracedRows {
  const { sequenceLength, bins } = options;
  const { starts, lengths, supervised } = examples;
  const kept = spreadEvenly(bins?.length ?? lengths.length, options.maxRows);
  const cut = (example: number): number => Math.min(lengths[example] ?? 0, sequenceLength);
  const itemsOf = (row: number): ArrayLike<number> => {
    const index = kept[row] ?? 0;
    return bins === null ? [index] : (bins[index] ?? []);
  };
  const sum = (items: ArrayLike<number>, of: (example: number) => number): number => {
    let total = 0;
    for (let i = 0; i < items.length; i++) total += of(items[i] ?? 0);
    return total;
  };
  const lengthOf = (row: number): number => sum(itemsOf(row), cut);
  const piecesOf = (row: number): RowPiece[] => {
    const items = itemsOf(row);
    let offset = 0;
    return Array.from({ length: items.length }, (_, i) => {
      const example = items[i] ?? 0;
      const length = cut(example);
      const numCut = (lengths[example] ?? 0) - length;
      const piece = { example, offset, length, before: 0, numCut };
      offset += length;
      return piece;
    });
  };
  return {
    ...rowTotals(kept.length, lengthOf, lengths),
    sequenceLength,
    inputs: inputFields({ hasSegments: bins !== null }),
    targets: [nextTokenField],
    lengthOf,
    lossWeight: (row) => sum(itemsOf(row), (example) => supervised[example] ?? 0),
    piecesOf,
    readCut({ example, numCut }, limit) {
      const tokens = new Int32Array(Math.min(numCut, limit));
      store.read((starts[example] ?? 0) + cut(example), tokens);
      return tokens.map((value) => (value < 0 ? ~value : value));
    },
    write(row, into) {
      const targets = nextTokens(into);
      for (const [i, { example, offset, length }] of piecesOf(row).entries()) {
        const tokens = into.tokens.subarray(offset, offset + length);
        store.read(starts[example] ?? 0, tokens);
        for (let j = 0; j < length; j++) {
          const value = tokens[j] ?? 0;
          if (value < 0) tokens[j] = ~value;
          else if (j > 0 && targets !== undefined) targets[offset + j - 1] = value;
        }
        into.segments?.fill(i + 1, offset, offset + length);
        if (into.positions !== undefined) {
          for (let j = 0; j < length; j++) into.positions[offset + j] = j;
        }
      }
    },
  };
}

/**
 * Gathers rows into a batch of static shape. Position i of a row predicts token i + 1, the last
 * position nothing: the labels of Hugging Face's `labels = input_ids`, shifted. Rows past the given
 * ones are padding throughout, without a target.
 *
 * @param rowIndices at most `numRows`
 */
export function gatherBatch(
  rows: TrainingRows,
  rowIndices: ArrayLike<number>,
  numRows: number,
): Batch {
  const { sequenceLength, inputs, targets } = rows;
  const made = [...inputs, ...targets].map((field) => {
    const size = valuesPerRow(field, sequenceLength);
    return { field, size, values: fieldArray(field, numRows * size) };
  });
  const fields = Object.fromEntries(made.map(({ field, values }) => [field.name, values]));
  fields["tokens"]?.fill(rows.paddingTokenId ?? 0);
  for (const field of targets) fields[field.name]?.fill(paddingOf(field));
  for (let row = 0; row < rowIndices.length; row++) {
    const parts = made.map(({ field, size, values }): [BatchField, FieldArray] => [
      field,
      values.subarray(row * size, (row + 1) * size),
    ]);
    rows.write(rowIndices[row] ?? 0, rowArrays(rows, parts));
  }
  return { numRows, fields };
}

/** A row's parts of the fields, as the rows write them. */
export function rowArrays(
  { targets }: TrainingRows,
  parts: readonly (readonly [BatchField, FieldArray])[],
): RowArrays {
  const named = (isTarget: boolean): Record<string, FieldArray> =>
    Object.fromEntries(
      parts.flatMap(([field, values]) =>
        targets.includes(field) === isTarget ? [[field.name, values]] : [],
      ),
    );
  // The model's inputs are whole numbers.
  return { ...(named(false) as unknown as Omit<RowArrays, "targets">), targets: named(true) };
}
