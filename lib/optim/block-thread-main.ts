/** The thread of `BlockThread`. */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { BlockPasses } from "./block-passes.js";
import type { BlockThreadData, BlockThreadTask } from "./block-thread.js";
import { instantiateKernels } from "./kernels.js";

const { layout, range, optimizer, map, memory, port, counters, sums } =
  workerData as BlockThreadData;
const passes = new BlockPasses({
  ...{ layout, range, optimizer, map, thread: 1 },
  kernels: await instantiateKernels(memory),
  buffer: memory.buffer as SharedArrayBuffer,
});
parentPort?.postMessage("ready");
for (let numDone = 0; ; numDone++) {
  while (Atomics.load(counters, 0) === numDone) Atomics.wait(counters, 0, numDone);
  try {
    const received = receiveMessageOnPort(port);
    if (received === undefined) throw new Error("a pass was begun and not sent");
    const task = received.message as BlockThreadTask;
    const { from, to } = task;
    if ("pass" in task) passes.run(task.pass, from, to, sums);
    else port.postMessage(passes.measure(task.measurement, from, to));
  } catch (error) {
    port.postMessage(String(error));
    Atomics.store(counters, 2, 1);
  }
  Atomics.store(counters, 1, numDone + 1);
  Atomics.notify(counters, 1);
}
