import { type Batch, inputFields } from "#lib/core/batch";
import assert from "node:assert/strict";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import type { ObjectiveJob, TrainingEngine, WorkerJob } from "#lib/core/job";
import { batchTargets, objectiveOf } from "#lib/objectives/index";
import { assertClose } from "./compare.js";
import { readFixtureCase, readFixtureSpace } from "./model-fixtures.js";
import { readSlot } from "./tiny-llama.js";

/** transformers' default. */
const defaultNumLabels = 2;

/** The rows of a fixture's case as one batch, and a job that learns them by an objective. */
export async function objectiveCase(
  name: string,
  kind: string,
  settings: Partial<ObjectiveJob> = {},
  precision: Precision = "fp32",
) {
  const reference = readFixtureCase(name);
  const { wireBytes, ...space } = await readFixtureSpace(name, computeDtypes[precision]);
  const names = Object.keys(space.modelConfig["id2label"] ?? {});
  const numLabels = kind === "causal_lm" ? {} : { numLabels: names.length || defaultNumLabels };
  const objective: ObjectiveJob = { kind, ...numLabels, ...settings };
  const learnt = objectiveOf(objective.kind);
  const job: WorkerJob = {
    jobId: "test",
    ...space,
    ...{ objective, parameters: { kind: "full" } },
    batchFields: [...inputFields({ hasSegments: true }), ...batchTargets(learnt, objective)],
    ...{ precision, generationLength: 0, threadsPerWorker: 1 },
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
      ...learnt.targetsOfLabels?.(reference),
    },
  };
  return { job, batch, reference, wireBytes };
}

/** The same by what the fixture's labels are: a class a row, or the next token. */
export const trainedCase = (name: string, precision: Precision) =>
  objectiveCase(
    name,
    readFixtureCase(name).labelsPerRow === 1 ? "single_label_classification" : "causal_lm",
    {},
    precision,
  );

/**
 * Computes the case's mean loss and its gradients with the weights that the engine has, and compares them with
 * another's within 1e-5.
 *
 * @param weight what the loss is a mean over
 * @returns the sum that the engine gave
 */
export async function assertLossAndGradients(
  engine: TrainingEngine,
  {
    job,
    batch,
    wireBytes,
  }: Pick<Awaited<ReturnType<typeof objectiveCase>>, "job" | "batch" | "wireBytes">,
  {
    weight,
    loss,
    gradientOf,
  }: {
    readonly weight: number;
    readonly loss: number;
    readonly gradientOf: (tensor: string) => Promise<Float32Array>;
  },
) {
  const gradients = new Uint8Array(wireBytes.byteLength);
  const sum = engine.accumulate(batch, 1 / weight, true, gradients);
  assert.equal(sum.weight, weight);
  assert.ok(Math.abs(sum.lossSum / weight / loss - 1) < 1e-5, `${sum.lossSum / weight}`);
  for (const { name: tensor } of job.layout.tensors) {
    const exact = await gradientOf(tensor);
    // A key's bias has no gradient, only rounding.
    if (Math.hypot(...exact) < 1e-6) continue;
    assertClose(readSlot(job.layout, tensor, gradients), exact, 1e-5, tensor);
  }
  return sum;
}
