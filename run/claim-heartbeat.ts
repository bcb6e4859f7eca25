import { Worker } from "node:worker_threads";
import { type ClaimRecord, rewriteRecord, heldRecord } from "./claim-files.js";

export interface HeartbeatOptions {
  readonly folder: string;
  readonly record: ClaimRecord;
  readonly beatMs: number;
}

/** In a thread of its own: an engine's calls keep the main one busy for longer than a claim may be silent. */
export const startHeartbeat = (options: HeartbeatOptions): Worker =>
  new Worker(new URL("./claim-thread.js", import.meta.url), {
    name: "claim",
    // What the process was started with may not hold for a thread, as the program of `node -e`.
    execArgv: [],
    workerData: options,
  });

/** Keeps rewriting a claim's record, until somebody else has the directory. */
export function beatEvery(
  { folder, record, beatMs }: HeartbeatOptions,
  onLost: () => void,
): NodeJS.Timeout {
  const timer = setInterval(() => {
    try {
      const held = heldRecord(folder, record);
      if (held !== undefined) {
        rewriteRecord(folder, { ...held, beats: held.beats + 1 });
        return;
      }
    } catch {
      // A file system that is away for a moment; what is written asks for itself.
      return;
    }
    clearInterval(timer);
    onLost();
  }, beatMs);
  return timer;
}
