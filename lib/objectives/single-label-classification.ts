import { type BatchField, countTargets, ignoredTarget, integerField } from "#lib/core/batch";
import { ClassCounts } from "./class-counts.js";
import { classLabels, labelField } from "./class-labels.js";
import {
  labelSmoothingFields,
  labelSmoothingOf,
  labelSmoothingSettings,
} from "./label-smoothing.js";
import type { Metric, Objective } from "./objective.js";

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

/** One class a row: its negative log-likelihood, nats. */
export const singleLabelClassification: Objective<typeof labelSmoothingFields> = {
  kind: "single_label_classification",
  unit: () => "row",
  fields: labelSmoothingFields,
  settings: labelSmoothingSettings,
  notes(job) {
    const smoothing = labelSmoothingOf(job);
    if (smoothing === 0) return [];
    return [
      `losses are of classes that label_smoothing_factor ${smoothing} smooths, in evaluations too`,
    ];
  },
  labels: classLabels,
  metrics: [accuracy, macroF1],
  targets: () => [labelField],
  weightOf: (fields) => countTargets(fields[labelField.name]),
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
