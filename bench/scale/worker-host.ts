/**
 * A process of simulated workers: each registers, leases, pulls, pushes and reports over the real
 * wire, and computes nothing. They share one buffer, which takes the parameters (the same bytes from
 * all) and is then pushed as the gradient, so that 64 of them fit into one machine.
 */
import { wireSizeBytes } from "#lib/core/parameter-layout";
import type { WorkerJob } from "#lib/core/job";
import { ControlClient } from "#lib/wire/control-client";
import { protocolVersion, type TrainTask } from "#lib/wire/control-messages";
import { ShardTransfers } from "#worker/transfers";
import { cpuSeconds, type HostMessage, type HostOptions, type ProceedMessage } from "./messages.js";

const longPollMs = 20_000;

const send = (message: HostMessage): void => {
  process.send?.(message);
};

/** One promise a step: resolved when the other side says that every first lease has pulled. */
class Barrier {
  #step = -1;
  readonly #waiting: { readonly step: number; readonly go: () => void }[] = [];

  open(step: number): void {
    this.#step = Math.max(this.#step, step);
    for (const { step: wanted, go } of this.#waiting) if (wanted <= this.#step) go();
  }

  async passed(step: number): Promise<void> {
    if (step <= this.#step) return;
    await new Promise<void>((go) => this.#waiting.push({ step, go }));
  }
}

let buffer: Uint8Array | undefined;

/** Read while pushing and written while pulling; the barrier keeps the two apart. */
function bufferFor(job: WorkerJob): Uint8Array {
  buffer ??= new Uint8Array(new SharedArrayBuffer(wireSizeBytes(job.layout)));
  return buffer;
}

async function simulate(index: number, address: string, barrier: Barrier): Promise<void> {
  const control = new ControlClient({ address, security: {} });
  const reply = await control.register({
    protocolVersion,
    name: `simulated-${index}`,
    host: "simulated",
    // A process that registers twice counts as restarted.
    pid: index + 1,
    deviceKind: "simulated",
    deviceType: "cpu",
    advisesBf16: true,
    bf16Slowdown: 0,
    advisesFp16: false,
    fp16Slowdown: 0,
    incarnation: `simulated-${index}`,
  });
  const { workerId, jobJson, shardAddresses } = reply;
  const pass = { ...reply, secret: reply.memberSecret };
  control.usePass(pass);
  const job = JSON.parse(jobJson) as WorkerJob;
  const bytes = bufferFor(job);
  const wholeSpace = { start: 0, end: job.layout.numElements };
  const transfers = new ShardTransfers({
    layout: job.layout,
    addresses: shardAddresses,
    security: {},
    pass,
    // They stand for workers on other machines.
    sharedMemory: false,
  });
  const onRetry = (error: unknown): void => {
    // A repeated transfer would be in the figures.
    send({ kind: "failed", reason: String(error) });
  };
  let version: number | undefined;
  const train = async (task: TrainTask): Promise<void> => {
    const { step, group, lease } = task;
    if (version !== task.version) {
      await transfers.pull(task.version, wholeSpace, bytes, { onRetry });
      version = task.version;
      send({ kind: "pulled", step, cpuSeconds: cpuSeconds() });
      await barrier.passed(step);
    }
    await transfers.push({ step, group, lease }, bytes, { onRetry });
    send({ kind: "pushed", step, cpuSeconds: cpuSeconds() });
    const sums = task.batches.map(({ numRows }) => ({ lossSum: 1, weight: numRows }));
    await control.completeTask({ workerId, lease, result: { kind: "losses", sums } });
  };
  for (;;) {
    const task = await control.nextTask({ workerId, maxWaitMs: longPollMs, heldLeases: [] });
    if (task.kind === "finished") break;
    if (task.kind === "train") await train(task);
  }
  await control.leave({ workerId, reason: "the job is over" });
  transfers.close();
  control.close();
}

const options = JSON.parse(process.argv[2] ?? "") as HostOptions;
const barrier = new Barrier();
process.on("message", ({ step }: ProceedMessage) => barrier.open(step));
try {
  await Promise.all(
    Array.from({ length: options.numWorkers }, async (_, i) =>
      simulate(options.firstWorker + i, options.coordinatorAddress, barrier),
    ),
  );
} catch (error) {
  send({ kind: "failed", reason: String(error) });
}
process.disconnect?.();
