import { type Batch, inputFields } from "#lib/core/batch";
import type { ObjectiveJob, WorkerJob } from "#lib/core/job";
import { objectiveOf } from "#lib/objectives/index";
import { readFixtureCase, readFixtureSpace } from "./model-fixtures.js";

/** transformers' default. */
const defaultNumLabels = 2;

/** The rows of a fixture's case as one batch, and a job that learns them by an objective. */
export async function objectiveCase(
  name: string,
  kind: string,
  settings: Partial<ObjectiveJob> = {},
) {
  const reference = readFixtureCase(name);
  const { wireBytes, ...space } = await readFixtureSpace(name);
  const names = Object.keys(space.modelConfig["id2label"] ?? {});
  const numLabels = kind === "causal_lm" ? {} : { numLabels: names.length || defaultNumLabels };
  const objective: ObjectiveJob = { kind, ...numLabels, ...settings };
  const { targets, targetsOfLabels } = objectiveOf(objective.kind);
  const job: WorkerJob = {
    jobId: "test",
    ...space,
    ...{ objective, parameters: { kind: "full" } },
    batchFields: [...inputFields({ hasSegments: true }), ...targets(objective)],
    ...{ precision: "fp32", generationLength: 0, threadsPerWorker: 1 },
    sequenceLength: reference.rowLength,
    microBatchSize: reference.numRows,
    evalBatchSize: reference.numRows,
  };
  const batch: Batch = {
    numRows: reference.numRows,
    fields: {
      tokens: reference.tokens,
      // Padding is a segment of its own.
      segments: reference.attentionMask,
      positions: reference.tokens.map((_, i) => i % reference.rowLength),
      ...targetsOfLabels(reference),
    },
  };
  return { job, batch, reference, wireBytes };
}
