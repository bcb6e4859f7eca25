import { wireSizeBytes } from "#lib/core/parameter-layout";
import { openOptimizer, shardsBytes } from "#lib/optim/index";
import type { PreparedRun } from "./prepared-run.js";

/** What a worker is about to need, from its traced graph. */
export interface MemoryNeed {
  /** Estimated peak of the worker's process, and of its GPU where it has one. */
  readonly plannedBytes: number;
  /** Memory of the device: of the GPU, else of the machine or its container. */
  readonly memoryTotalBytes: number;
  readonly deviceType: "cpu" | "gpu";
}

/** What else is on the machine. */
interface Others {
  readonly numWorkers: number;
  /** Masters, what the optimizer keeps, sum and two published versions. */
  readonly optimizerBytes: number;
  /** Frozen weights in wire form, which a coordinator serves. */
  readonly frozenBytes: number;
}

type Trained = Pick<PreparedRun, "job" | "updates">;

const optimizerBytesOf = ({ job: { layout }, updates: { optimizer } }: Trained): number =>
  shardsBytes(layout, openOptimizer(optimizer));

/** What a cluster's coordinator holds, as far as the run is known. */
export const besideWorkers = (run: Trained | undefined, numWorkers: number): Others => ({
  numWorkers,
  optimizerBytes: run === undefined ? 0 : optimizerBytesOf(run),
  frozenBytes: run?.job.frozen === undefined ? 0 : wireSizeBytes(run.job.frozen),
});

/** What a run in one process holds beside its engine, which alone has the frozen weights. */
export const besideEngine = (run: Trained): Others => ({
  ...{ numWorkers: 1, frozenBytes: 0 },
  optimizerBytes: optimizerBytesOf(run),
});

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** The estimate for a person, with a warning where the memory will not do. */
export function memoryLines(
  { plannedBytes, memoryTotalBytes, deviceType }: MemoryNeed,
  others?: Others,
): string[] {
  const isShared = deviceType === "cpu" && others !== undefined;
  const { optimizerBytes, frozenBytes } = others ?? { optimizerBytes: 0, frozenBytes: 0 };
  const neededBytes = isShared
    ? plannedBytes * others.numWorkers + optimizerBytes + frozenBytes
    : plannedBytes;
  const parts = [
    `about ${gib(plannedBytes)} a worker`,
    ...(isShared ? [`${gib(optimizerBytes)} for the optimizer`] : []),
    ...(isShared && frozenBytes > 0 ? [`${gib(frozenBytes)} for the frozen weights`] : []),
  ];
  const lines = [`Memory: ${parts.join(", ")}, of ${gib(memoryTotalBytes)}`];
  if (neededBytes > memoryTotalBytes) {
    lines.push(
      `warning: about ${gib(neededBytes)} are needed; gradient_checkpointing: true, a smaller ` +
        "per_device_train_batch_size or max_length, or fewer workers need less",
    );
  }
  return lines;
}
