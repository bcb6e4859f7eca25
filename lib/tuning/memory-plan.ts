import type { WorkerJob } from "#lib/core/job";
import { peakValueBytes } from "#lib/graph/memory-plan";
import type { TrainingPrograms } from "./programs.js";

/** Node, and TensorFlow with its compiled functions. */
const processBytes = 0.6e9;
/**
 * Of what the values take: scratch memory of products, and what TensorFlow's allocator holds between
 * values and cannot use.
 */
const overheadOfValues = 0.25;

/**
 * Estimated peak of a process that computes the job, without its buffers in wire form.
 *
 * @returns bytes; undefined where XLA orders the step
 */
export function plannedEngineBytes(
  job: WorkerJob,
  { gradients, evaluate }: TrainingPrograms,
): number | undefined {
  if (job.xla === true) return undefined;
  const steps = job.accumulates === false ? [gradients.only] : [gradients.first, gradients.last];
  const peak = Math.max(
    ...[...steps, evaluate].map(({ fetches }) => peakValueBytes(Object.values(fetches))),
  );
  const trained = job.layout.numElements;
  const frozen = job.lora?.frozen.numElements ?? 0;
  const weightBytes = (trained + frozen) * (job.precision === "bf16" ? 2 : 4);
  const accumulatorBytes = job.accumulates === false ? 0 : trained * 4;
  return processBytes + weightBytes + accumulatorBytes + peak * (1 + overheadOfValues);
}
