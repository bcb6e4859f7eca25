import { type Batch, type FieldArray, hasField, nextTokenField } from "#lib/core/batch";
import {
  exactWeight,
  rowWeightsField,
  sumOfWeights,
  tokenWeightsField,
} from "#lib/core/loss-weights";
import { asWeights, type SelectedWeights } from "./example-weights.js";
import { type Examples, gatherBatch, type TracedRows } from "./rows.js";
import type { TokenStore } from "./token-store.js";

/** Rows of tokens whose targets count by the weights of their examples, times those of their tokens. */
export function weightedTokenRows(
  store: TokenStore,
  { starts, lengths }: Examples,
  { weights, hasSpans }: SelectedWeights,
  rows: TracedRows,
): TracedRows {
  /** Of tokens of an example, from one on; undefined: 1 each. */
  const spanWeights = (example: number, first: number, count: number): Float32Array | undefined => {
    if (hasSpans[example] !== 1) return undefined;
    const words = new Int32Array(count);
    store.read((starts[example] ?? 0) + (lengths[example] ?? 0) + first, words);
    return asWeights(words);
  };
  // What a row counts is asked for once a step, and costs reading it.
  const sums = new Float64Array(rows.numRows).fill(Number.NaN);
  const weighted: TracedRows = {
    ...rows,
    targets: [...rows.targets, tokenWeightsField],
    write(row, into) {
      rows.write(row, into);
      const targets = into.targets[nextTokenField.name];
      const values = into.targets[tokenWeightsField.name];
      values?.fill(0);
      for (const { example, offset, length, before } of rows.piecesOf(row)) {
        const own = weights[example] ?? 1;
        const spans = spanWeights(example, before, length);
        for (let i = 0; i < length; i++) {
          // The target that is this token stands one position before it.
          const at = offset + i - 1;
          if (values === undefined || at < 0 || (targets?.[at] ?? -1) < 0) continue;
          values[at] = exactWeight(own * (spans?.[i] ?? 1));
        }
      }
    },
    lossWeight(row) {
      if (Number.isNaN(sums[row])) {
        const { fields } = gatherBatch(weighted, [row], 1);
        sums[row] = sumOfWeights(fields[nextTokenField.name], fields[tokenWeightsField.name]);
      }
      return sums[row] ?? 0;
    },
  };
  return weighted;
}

/** The same where each counts 1: they go into batches beside rows that have weights. */
export function evenTokenRows(rows: TracedRows): TracedRows {
  if (hasField(rows.targets, tokenWeightsField.name)) return rows;
  return {
    ...rows,
    targets: [...rows.targets, tokenWeightsField],
    write(row, into) {
      rows.write(row, into);
      writeEvenWeights(into.targets);
    },
  };
}

/** A batch of tokens whose targets each count 1, whatever its rows' weights say. */
export function evenBatch(batch: Batch): Batch {
  const weights = batch.fields[tokenWeightsField.name];
  if (weights === undefined) return batch;
  const fields = { ...batch.fields, [tokenWeightsField.name]: weights.slice() };
  writeEvenWeights(fields);
  return { ...batch, fields };
}

function writeEvenWeights(fields: Readonly<Record<string, FieldArray>>): void {
  const targets = fields[nextTokenField.name];
  fields[tokenWeightsField.name]?.forEach((_, at, values) => {
    values[at] = (targets?.[at] ?? -1) < 0 ? 0 : 1;
  });
}

/** Rows with a label that count by the weights of their examples. */
export function weightedLabelRows({ weights }: SelectedWeights, rows: TracedRows): TracedRows {
  const weightOf = (row: number): number => weights[rows.piecesOf(row)[0]?.example ?? -1] ?? 1;
  return {
    ...rows,
    targets: [...rows.targets, rowWeightsField],
    targetsOf: (row) => ({
      ...rows.targetsOf?.(row),
      [rowWeightsField.name]: Float32Array.of(weightOf(row)),
    }),
    write(row, into) {
      rows.write(row, into);
      into.targets[rowWeightsField.name]?.fill(weightOf(row));
    },
  };
}
