import { isMainThread, parentPort, SHARE_ENV, Worker } from "node:worker_threads";
import { loadBinding } from "#lib/graph/binding";

// A process with an engine in a thread, as a worker has it, that computes nothing before it ends.
if (isMainThread) {
  const thread = new Worker(new URL(import.meta.url), { env: SHARE_ENV });
  thread.on("message", () => void thread.terminate());
} else {
  loadBinding();
  parentPort?.postMessage("loaded");
}
