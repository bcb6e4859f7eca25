import type { HubFile } from "./download-blob.js";

/** Share of the whole between two lines, in percent; a slow download tells more often. */
const percentStep = 5;
const longestSilenceMs = 15_000;

/** Lines about a download for a display: how far it is, and how fast. */
export class DownloadProgress {
  readonly #id: string;
  readonly #totalBytes: number;
  readonly #onDetail: (detail: string) => void;
  /** Of files that are done. */
  #doneBytes = 0;
  /** Kept from an earlier attempt, so not part of the speed. */
  #keptBytes = 0;
  #told = { percent: -percentStep, atMs: Number.NEGATIVE_INFINITY };
  readonly #startedMs = performance.now();

  constructor(id: string, files: readonly HubFile[], onDetail: (detail: string) => void) {
    this.#id = id;
    this.#totalBytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    this.#onDetail = onDetail;
  }

  /** What downloadBlob calls for one file. */
  hooksFor(file: HubFile): { onBytes: (arrivedBytes: number) => void; onWait: () => void } {
    let isFirst = true;
    return {
      onBytes: (arrivedBytes) => {
        if (isFirst) this.#keptBytes += arrivedBytes;
        if (isFirst && arrivedBytes > 0) {
          this.#onDetail(`${this.#id}: going on with ${file.name} at ${bytes(arrivedBytes)}`);
        }
        isFirst = false;
        this.#tell(file, this.#doneBytes + arrivedBytes);
      },
      onWait: () =>
        this.#onDetail(`${this.#id}: waiting for another process that downloads ${file.name}`),
    };
  }

  done(file: HubFile): void {
    this.#doneBytes += file.sizeBytes;
    if (this.#doneBytes === this.#totalBytes) this.#tell(file, this.#doneBytes);
  }

  #tell({ name }: HubFile, arrivedBytes: number): void {
    const percent = Math.floor((100 * arrivedBytes) / Math.max(1, this.#totalBytes));
    const nowMs = performance.now();
    const isDue =
      percent >= this.#told.percent + percentStep || nowMs > this.#told.atMs + longestSilenceMs;
    if (!isDue && !(percent === 100 && this.#told.percent < 100)) return;
    this.#told = { percent, atMs: nowMs };
    const seconds = (nowMs - this.#startedMs) / 1000;
    const speed = Math.max(0, arrivedBytes - this.#keptBytes) / Math.max(seconds, 0.001);
    const rate = seconds < 1 ? "" : `, ${bytes(speed)}/s`;
    this.#onDetail(
      `downloading ${this.#id}: ${percent} % of ${bytes(this.#totalBytes)}, ${name}${rate}`,
    );
  }
}

function bytes(count: number): string {
  for (const [unit, size] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const) {
    if (count >= size) return `${(count / size).toFixed(1)} ${unit}`;
  }
  return `${Math.round(count)} bytes`;
}
