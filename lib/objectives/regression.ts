import type { Objective } from "./objective.js";

/** Numbers a row: the squared error. Checkpoints are verified by it; rows with numbers have no reader. */
export const regression: Objective = {
  kind: "regression",
  unit: "output",
  isTrained: false,
  metrics: [],
  targets: ({ numLabels = 1 }) => [{ name: "numbers", dtype: "float32", perRow: numLabels }],
  weightOf: ({ numbers = new Float32Array(0) }) => numbers.length,
  targetsOfLabels: ({ labels }) => ({ numbers: Float32Array.from(labels) }),
};
