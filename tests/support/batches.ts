import {
  type Batch,
  ignoredTarget,
  inputFields,
  integerField,
  nextTokenField,
} from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { labelField } from "#lib/objectives/class-labels";

type Inputs = Parameters<typeof inputFields>[0];

/** What a job of the next token says of its batches. */
export const causalJob = (inputs?: Inputs): Pick<WorkerJob, "objective" | "batchFields"> => ({
  objective: { kind: "causal_lm" },
  batchFields: [...inputFields(inputs), nextTokenField],
});

/** What a job of one class a row says of its batches. */
export const classifierJob = (
  numLabels: number,
  inputs?: Inputs,
): Pick<WorkerJob, "objective" | "batchFields"> => ({
  objective: { kind: "single_label_classification", numLabels },
  batchFields: [...inputFields({ hasSegments: true, ...inputs }), labelField],
});

export const tokensOf = (batch: Batch): Int32Array => integerField(batch, "tokens");
export const targetsOf = (batch: Batch): Int32Array => integerField(batch, nextTokenField.name);
export const labelsOf = (batch: Batch): Int32Array => integerField(batch, labelField.name);

/** Targets of labels in transformers' form: position i predicts i + 1. */
export const shifted = (labels: readonly number[], rowLength: number): Int32Array =>
  Int32Array.from(labels, (_, i) =>
    (i + 1) % rowLength === 0 ? ignoredTarget : (labels[i + 1] as number),
  );
