import type { Batch } from "#lib/core/batch";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import type { WorkerJob } from "#lib/core/job";
import { causalJob, classifierJob, shifted } from "./batches.js";
import { readFixtureCase, readFixtureSpace } from "./model-fixtures.js";

/** A model of the fixtures to be trained whole, with its case as a batch; padding is a segment of its own. */
export async function readFixtureJob(
  name: string,
  precision: Precision,
): Promise<{ readonly job: WorkerJob; readonly wireBytes: Uint8Array; readonly batch: Batch }> {
  const reference = readFixtureCase(name);
  const { wireBytes, ...space } = await readFixtureSpace(name, computeDtypes[precision]);
  const isClassifier = reference.labelsPerRow === 1;
  const job: WorkerJob = {
    jobId: "test",
    ...space,
    ...{ precision, generationLength: 0, threadsPerWorker: 1 },
    ...(isClassifier ? classifierJob(2) : causalJob({ hasSegments: true })),
    parameters: { kind: "full" },
    sequenceLength: reference.rowLength,
    microBatchSize: reference.numRows,
    evalBatchSize: reference.numRows,
  };
  const batch: Batch = {
    numRows: reference.numRows,
    fields: {
      tokens: reference.tokens,
      segments: reference.attentionMask,
      positions: Int32Array.from(reference.tokens, (_, i) => i % reference.rowLength),
      ...(isClassifier
        ? { label: Int32Array.from(reference.labels) }
        : { targets: shifted(reference.labels, reference.rowLength) }),
    },
  };
  return { job, wireBytes, batch };
}
