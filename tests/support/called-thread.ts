/** A thread for tests of `ThreadClient`: does what each call says. */
import { setTimeout as delay } from "node:timers/promises";
import { workerData } from "node:worker_threads";
import { LockstepError } from "#lib/core/errors/index";
import { serveThread } from "#lib/core/thread-client";

export interface TestCall {
  readonly echo?: unknown;
  readonly afterMs?: number;
  readonly notice?: string;
  readonly fail?: "catalogue" | "other" | "crash" | "exit";
}

await serveThread<string, TestCall, unknown, string>(async (notify) => {
  if (workerData === "fail") throw new LockstepError("E_FRAME_INVALID", { reason: "at the start" });
  return {
    ready: "here",
    handle: async ({ echo, afterMs = 0, notice, fail }) => {
      if (afterMs > 0) await delay(afterMs);
      if (notice !== undefined) notify(notice);
      if (fail === "catalogue") throw new LockstepError("E_FRAME_INVALID", { reason: "told" });
      if (fail === "other") throw new TypeError("no entry");
      if (fail === "exit") process.exit(7);
      if (fail === "crash") setImmediate(() => assertNothing());
      return echo;
    },
    isLast: ({ echo }) => echo === "last",
  };
});

function assertNothing(): never {
  throw new Error("out of the loop");
}
