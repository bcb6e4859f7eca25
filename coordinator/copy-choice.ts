/** Of the memory that is free, what a copy of the shards' arrays may take. */
const freeShare = 0.25;
/** Less is copied in some tenths of a second, whatever steps take. */
const smallBytes = 256e6;
/** What a save writes, until one has been measured: a slow disk. */
const assumedBytesPerSecond = 400e6;

/**
 * Which arrays are copied before they are saved. Others are written from the shards' own memory, and the next update
 * waits until they are read: where that is over before the step's gradients are there, a copy would only cost time,
 * above all the first one, for which the system has to find the memory.
 */
export class CopyChoice {
  readonly #limitBytes: number | undefined;
  #stepSeconds = 0;
  #bytesPerSecond = assumedBytesPerSecond;

  /** @param limitBytes up to which all are copied, and none beyond; undefined: as above */
  constructor(limitBytes: number | undefined) {
    this.#limitBytes = limitBytes;
  }

  stepCompleted(seconds: number): void {
    this.#stepSeconds = seconds;
  }

  saved(bytes: number, seconds: number): void {
    if (bytes > 0 && seconds > 0) this.#bytesPerSecond = bytes / seconds;
  }

  /** @param bytes of the arrays. @param freeBytes of memory */
  readonly isCopied = (bytes: number, freeBytes = process.availableMemory()): boolean => {
    if (this.#limitBytes !== undefined) return bytes <= this.#limitBytes;
    if (bytes > freeShare * freeBytes) return false;
    return bytes < smallBytes || bytes > this.#bytesPerSecond * this.#stepSeconds;
  };
}
