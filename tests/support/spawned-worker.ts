import { ownChild } from "./children.js";
import { forkWorker, type TestWorker } from "./cluster.js";

/** A worker of a test, which does not outlive the tests of its file. */
export function spawnWorker(...how: Parameters<typeof forkWorker>): TestWorker {
  const worker = forkWorker(...how);
  ownChild(worker.process);
  return worker;
}
