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
  /** Of the optimizer in the coordinator: master, two moments and sum in float32, two versions of bfloat16. */
  readonly numParameters: number;
}

const optimizerBytesPerParameter = 20;
const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** The estimate for a person, with a warning where the memory will not do. */
export function memoryLines(
  { plannedBytes, memoryTotalBytes, deviceType }: MemoryNeed,
  others?: Others,
): string[] {
  const isShared = deviceType === "cpu" && others !== undefined;
  const optimizerBytes = (others?.numParameters ?? 0) * optimizerBytesPerParameter;
  const neededBytes = isShared ? plannedBytes * others.numWorkers + optimizerBytes : plannedBytes;
  const parts = [
    `about ${gib(plannedBytes)} a worker`,
    ...(isShared ? [`${gib(optimizerBytes)} for the optimizer`] : []),
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
