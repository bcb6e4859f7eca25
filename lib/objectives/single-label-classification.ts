import { type Batch, type BatchField, ignoredTarget, integerField } from "#lib/core/batch";
import { rowWeightsField, sumOfWeights } from "#lib/core/loss-weights";
import { ClassCounts } from "./class-counts.js";
import { classLabels, labelField } from "./class-labels.js";
import {
  balancedWeights,
  classWeightFields,
  classWeightSettings,
  classWeightsOf,
  describedWeights,
  exactProduct,
  productSettings,
} from "./class-weights.js";
import {
  labelSmoothingFields,
  labelSmoothingOf,
  labelSmoothingSettings,
} from "./label-smoothing.js";
import type { Metric, Objective } from "./objective.js";
import { zLossFields, zLossNotes, zLossSettings } from "./z-loss.js";

/** The class that the model gives a row. */
const predictionField: BatchField = { name: "prediction", dtype: "int32", perRow: 1 };

const ratio = { greaterIsBetter: true, digits: 4, isRatio: true } as const;
const accuracy: Metric = {
  ...ratio,
  key: "accuracy",
  label: "accuracy",
  help: "Share of rows whose class is predicted.",
};
export const macroF1: Metric = {
  ...ratio,
  key: "macro_f1",
  label: "macro-F1",
  help: "Mean of the classes' F1 scores.",
};

/** The class of a row. */
const classesOf = ({ [labelField.name]: label = new Int32Array(0) }: Batch["fields"]): number[] => [
  ...label,
];

const fields = { ...labelSmoothingFields, ...classWeightFields, ...zLossFields };

/** One class a row: its negative log-likelihood, nats. */
export const singleLabelClassification: Objective<typeof fields> = {
  kind: "single_label_classification",
  unit: (job) =>
    classWeightsOf(job) === undefined && job.isWeighted !== true ? "row" : "weighted row",
  fields,
  settings(config, labels) {
    const settings = classWeightSettings(config, labels, { classesOf, balanced: balancedWeights });
    return {
      ...labelSmoothingSettings(config),
      ...zLossSettings(config),
      ...settings,
      ...productSettings(settings, labels, classesOf),
    };
  },
  notes(job, names) {
    const [smoothing, weights] = [labelSmoothingOf(job), classWeightsOf(job)];
    return [
      ...(smoothing === 0
        ? []
        : [
            `losses are of classes that label_smoothing_factor ${smoothing} smooths, in evaluations too`,
          ]),
      ...(weights === undefined
        ? []
        : [`the loss of a row counts by its class: ${describedWeights(names, weights)}`]),
      ...zLossNotes(job),
    ];
  },
  labels: classLabels,
  metrics: [accuracy, macroF1],
  targets: () => [labelField],
  weights: rowWeightsField,
  // torch divides by the weights of the targets.
  weightOf({ [labelField.name]: labels = new Int32Array(0), weights: rows }, job) {
    const weights = classWeightsOf(job);
    if (weights === undefined) return sumOfWeights(labels, rows);
    let sum = 0;
    labels.forEach((label, row) => {
      const weight = weights[label] ?? 0;
      sum += rows === undefined ? weight : exactProduct(job, weight, rows[row] ?? 0);
    });
    return sum;
  },
  outputs: () => predictionField,
  scorer({ numLabels = 0 }) {
    const counts = new ClassCounts(numLabels);
    return {
      add(batch, outputs) {
        const { numRows } = batch;
        const areClasses =
          outputs?.every((label: number) => label >= 0 && label < numLabels) === true;
        if (!areClasses || outputs.length !== numRows) {
          throw new RangeError(`no class below ${numLabels} for each of ${numRows} rows`);
        }
        counts.add(integerField(batch, labelField.name), outputs);
      },
      values: () => ({
        [accuracy.key]: counts.accuracy(),
        [macroF1.key]: counts.macroF1(),
      }),
    };
  },
  targetsOfLabels: ({ labels }) => ({
    [labelField.name]: Int32Array.from(labels, (label) => (label >= 0 ? label : ignoredTarget)),
  }),
};
