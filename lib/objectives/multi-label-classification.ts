import { rowWeightsField, sumOfWeights } from "#lib/core/loss-weights";
import {
  balancedPositiveWeights,
  classWeightFields,
  classWeightSettings,
  classWeightsOf,
  describedWeights,
} from "./class-weights.js";
import { LabelCounts } from "./label-counts.js";
import { labelSets, labelsField } from "./label-sets.js";
import type { Metric, Objective } from "./objective.js";
import { macroF1 } from "./single-label-classification.js";

const ratio = { greaterIsBetter: true, digits: 4, isRatio: true } as const;
const microF1: Metric = {
  ...ratio,
  key: "micro_f1",
  label: "micro-F1",
  help: "F1 of all labels of all rows together.",
};
const exactMatch: Metric = {
  ...ratio,
  key: "exact_match",
  label: "exact match",
  help: "Share of rows whose labels are all predicted and no other.",
};

/** Any number of classes a row: the binary cross-entropy of each, nats. */
export const multiLabelClassification: Objective<typeof classWeightFields> = {
  kind: "multi_label_classification",
  unit: ({ isWeighted }) => (isWeighted === true ? "weighted label" : "label"),
  fields: classWeightFields,
  settings: (config, labels) =>
    classWeightSettings(config, labels, {
      classesOf: ({ labels: held = new Float32Array(0) }) =>
        [...held].flatMap((value, label) => (value === 1 ? [label] : [])),
      balanced: balancedPositiveWeights,
    }),
  notes(job, names) {
    const weights = classWeightsOf(job);
    if (weights === undefined) return [];
    return [
      `the loss of a class counts by its weight in rows that have it: ${describedWeights(names, weights)}`,
    ];
  },
  labels: labelSets,
  metrics: [microF1, macroF1, exactMatch],
  targets: ({ numLabels = 0 }) => [labelsField(numLabels)],
  weights: rowWeightsField,
  weightOf: ({ labels, weights }) => sumOfWeights(labels, weights),
  // Whether each class is more likely than not.
  outputs: ({ numLabels = 0 }) => ({ name: "predictions", dtype: "int32", perRow: numLabels }),
  scorer({ numLabels = 0 }) {
    const counts = new LabelCounts(numLabels);
    return {
      add({ numRows, fields: { labels = new Float32Array(0) } }, outputs) {
        const areSaid = outputs?.every((said: number) => said === 0 || said === 1) === true;
        if (!areSaid || outputs.length !== numRows * numLabels) {
          throw new RangeError(`no 0 or 1 for each of ${numLabels} classes of ${numRows} rows`);
        }
        counts.add(labels, outputs);
      },
      values: () => ({
        [microF1.key]: counts.microF1(),
        [macroF1.key]: counts.macroF1(),
        [exactMatch.key]: counts.exactMatch(),
      }),
    };
  },
  targetsOfLabels: ({ labels }) => ({ labels: Float32Array.from(labels) }),
};
