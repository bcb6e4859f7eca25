import { countedField, integerField } from "#lib/core/batch";
import { rowWeightsField, sumOfWeights } from "#lib/core/loss-weights";
import { numberLabels, numbersField } from "./number-labels.js";
import { NumberScores } from "./number-scores.js";
import type { Metric, Objective } from "./objective.js";

const error = { greaterIsBetter: false, digits: 4, isRatio: false } as const;
const correlation = { greaterIsBetter: true, digits: 4, isRatio: false } as const;

// Those of correlations are called as GLUE's metric calls them.
const metrics: readonly Metric[] = [
  {
    ...error,
    key: "rmse",
    label: "RMSE",
    help: "Root mean squared error of a regression in the latest evaluation.",
  },
  {
    ...error,
    key: "mae",
    label: "MAE",
    help: "Mean absolute error of a regression in the latest evaluation.",
  },
  {
    ...correlation,
    key: "pearson",
    label: "Pearson",
    help: "Pearson's correlation of a regression with the labels in the latest evaluation, -1 to 1.",
  },
  {
    ...correlation,
    key: "spearmanr",
    label: "Spearman",
    help: "Spearman's rank correlation of a regression with the labels in the latest evaluation, -1 to 1.",
  },
];

/** Numbers a row: the squared error of each. */
export const regression: Objective<Record<never, never>> = {
  kind: "regression",
  isSquaredError: true,
  unit: ({ isWeighted }) => (isWeighted === true ? "weighted number" : "number"),
  fields: {},
  labels: numberLabels,
  metrics,
  // A number may be below 0 itself, so rows of padding are told by a field of their own.
  targets: ({ numLabels = 1 }) => [numbersField(numLabels), countedField],
  weights: rowWeightsField,
  weightOf: ({ counted, weights }, { numLabels = 1 }) => sumOfWeights(counted, weights) * numLabels,
  outputs: ({ numLabels = 1 }) => ({ ...numbersField(numLabels), name: "predictions" }),
  scorer({ numLabels = 1 }) {
    const scores = new NumberScores(numLabels);
    return {
      add(batch, outputs) {
        if (outputs?.length !== batch.numRows * numLabels) {
          throw new RangeError(`no ${numLabels} number(s) for each of ${batch.numRows} rows`);
        }
        const { numbers = new Float32Array(0) } = batch.fields;
        scores.add(integerField(batch, countedField.name), numbers, outputs);
      },
      values: () => scores.values(),
    };
  },
  targetsOfLabels: ({ labels, numRows }) => ({
    numbers: Float32Array.from(labels),
    [countedField.name]: new Int32Array(numRows).fill(1),
  }),
};
