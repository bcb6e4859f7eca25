import os from "node:os";

/** Memory of the machine, or of the container where that has less. */
export const memoryTotalBytes = (): number =>
  Math.min(os.totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);

/** Of all memory, what a second copy of weights may leave no less than free. */
const freeShare = 0.25;

/** Whether a process may hold these weights twice. */
export const hasRoomForTwo = (weightBytes: number): boolean =>
  2 * weightBytes <= (1 - freeShare) * memoryTotalBytes();
