import { LockstepError } from "#lib/core/errors/index";
import type { Classes, LabelTable } from "#lib/core/labels";
import type { BadExamples } from "./bad-examples.js";
import type { ExampleEncoder } from "./encode-stream.js";
import type { SelectedWeights } from "./example-weights.js";
import { NumberList } from "./number-list.js";
import type { Examples } from "./rows.js";

/** Examples of one side, with what only labelled ones have: elsewhere those arrays hold zeros. */
export interface SelectedExamples extends Examples {
  /** Their numbers among the examples of both sides. */
  readonly indices: Int32Array;
  readonly labels: Int32Array;
  readonly cutTokens: Int32Array;
  /** Of pairs of answers. */
  readonly chosenLengths: Int32Array;
  readonly margins: Float64Array;
  /** Undefined where all examples of both sides count 1. */
  readonly weights: SelectedWeights | undefined;
}

/**
 * The examples of both sides of which something can be learnt; the others are bad ones.
 *
 * @param isValidation of an example, by its number in the order of reading
 * @param labels of labelled examples; the labels of the training side are all known
 * @throws E_DATA_TOO_MANY_BAD_ROWS, and bad examples where they end the run
 */
export function selectSides(
  encoder: ExampleEncoder,
  isValidation: (example: number) => boolean,
  options: {
    readonly sequenceLength: number;
    readonly badExamples: BadExamples;
    /** Whether texts are laid end to end. */
    readonly isWrapped: boolean;
    readonly labels: { readonly table: LabelTable; readonly classes: Classes } | undefined;
  },
): Readonly<Record<"train" | "validation", SelectedExamples>> {
  const { sequenceLength, badExamples, isWrapped, labels } = options;
  const reject = (error: LockstepError): false => {
    badExamples.reject(error);
    encoder.numRejected++;
    return false;
  };
  const supervised = encoder.supervised.values;
  /** A row of its own needs a second token; laid end to end, the next text gives it. */
  const isLearnt = (example: number): boolean => {
    if (isWrapped || (supervised[example] ?? 0) > 0) return true;
    const facts = { place: `example ${example + 1}`, numTokens: 1, maxLength: sequenceLength };
    return reject(new LockstepError("E_DATA_NOTHING_SUPERVISED", facts));
  };
  const labelNumbers = encoder.labels.values;
  const isKnown = (example: number): boolean => {
    const label = labelNumbers[example];
    if (labels === undefined || label === undefined) return true;
    const { table, classes } = labels;
    return classes.targetsOf(label) !== undefined || reject(table.unseen(label, classes));
  };
  const selected = {
    train: selectExamples(encoder, (i) => !isValidation(i) && isLearnt(i)),
    validation: selectExamples(encoder, (i) => isValidation(i) && isLearnt(i) && isKnown(i)),
  };
  badExamples.checkShare(encoder.numExamples - encoder.numRejected + badExamples.count);
  return selected;
}

function selectExamples(
  encoder: ExampleEncoder,
  keep: (example: number) => boolean,
): SelectedExamples {
  const indices = NumberList.ofInt32();
  for (let i = 0; i < encoder.starts.length; i++) if (keep(i)) indices.push(i);
  const starts = new Float64Array(indices.length);
  const lengths = new Int32Array(indices.length);
  const supervised = new Int32Array(indices.length);
  const labels = new Int32Array(indices.length);
  const cutTokens = new Int32Array(indices.length);
  const chosenLengths = new Int32Array(indices.length);
  const margins = new Float64Array(indices.length);
  const of = {
    chosenLengths: encoder.chosenLengths.values,
    margins: encoder.margins.values,
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
    chosenLengths[i] = of.chosenLengths[example] ?? 0;
    margins[i] = of.margins[example] ?? 0;
  }
  const weights = encoder.weights.of(indices.values);
  return {
    ...{ indices: indices.values.slice(), starts, lengths, supervised, labels, cutTokens },
    ...{ chosenLengths, margins, weights },
  };
}
