import { bytesPerElement, computeDtypes, isNf4 } from "#lib/core/dtype";
import type { WorkerJob } from "#lib/core/job";
import { type ParameterLayout, regionAt, type TensorSlot } from "#lib/core/parameter-layout";
import { nf4GroupBytes, nf4GroupElements } from "#lib/core/nf4";
import { wirePieces, wireRangeBytes } from "#lib/core/wire-space";
import { pooledBytes } from "#lib/graph/memory-plan";
import type { TrainingPrograms } from "./programs.js";

/**
 * What the first runs bring that no value takes, seen on processors with and without AVX-512: 60 MB of
 * TensorFlow's code that is read from its file then, and some 50 MB each for the functions that XLA
 * compiles and for oneDNN's packed operands.
 */
const firstRunBytes = 0.18e9;

/**
 * Estimated peak of a process that computes the job, without its buffers in wire form.
 *
 * @param processBytes what the process takes with the graph imported and nothing run
 * @returns bytes; undefined where XLA orders the step
 */
export function plannedEngineBytes(
  job: WorkerJob,
  { gradients, squares, evaluate, otherTasks }: TrainingPrograms,
  processBytes: number,
): number | undefined {
  if (job.xla === true) return undefined;
  const ofTasks = [{ gradients, evaluate }, ...otherTasks].flatMap((task) =>
    job.accumulates === false
      ? [task.gradients.only, task.evaluate]
      : [task.gradients.first, task.gradients.last, task.evaluate],
  );
  const programs = [...ofTasks, ...(squares === undefined ? [] : [squares.first, squares.next])];
  const { frozen } = job;
  const matrixBytes = bytesPerElement[computeDtypes[job.precision]];
  const bytesIn =
    (layout: ParameterLayout) =>
    ({ offset, shape, size }: TensorSlot): number => {
      const { dtype } = regionAt(layout, offset);
      if (isNf4(dtype)) return Math.ceil(size / nf4GroupElements) * nf4GroupBytes[dtype];
      return size * (shape.length >= 2 ? matrixBytes : 4);
    };
  const weights = [...(frozen === undefined ? [] : [frozen]), job.layout].flatMap((layout) =>
    layout.tensors.map(bytesIn(layout)),
  );
  const accumulators =
    job.accumulates === false && squares === undefined
      ? []
      : job.layout.tensors.map(({ size }) => size * 4);
  return (
    processBytes +
    firstRunBytes +
    (frozen === undefined ? 0 : largestPieceBytes(frozen)) +
    pooledBytes(
      [...weights, ...accumulators],
      largestPieceBytes(job.layout),
      programs.map(({ fetches }) => Object.values(fetches)),
    )
  );
}

const largestPieceBytes = (layout: ParameterLayout): number =>
  Math.max(0, ...wirePieces(layout).map((range) => wireRangeBytes(layout, range)));
