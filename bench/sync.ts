/**
 * Cost of a step's synchronisation on loopback: two workers (threads with a connection to each shard)
 * push their bfloat16 gradients of 124M parameters to two reducer shards, which sum, take the norm,
 * clip, update and publish; both workers pull the result.
 *
 * node dist/bench/sync.js [numRounds] [numShards] [sockets]
 *
 * With "sockets" no payload passes through shared memory, as between machines. The last line is JSON for
 * the table. With a network namespace whose loopback is limited it shows what
 * share of a link is used:
 *
 * unshare -n sh -c 'ip link set lo up; tc qdisc add dev lo root tbf rate 1gbit burst 1mb latency 50ms;
 *   node dist/bench/sync.js 3 2 sockets'
 */
import { once } from "node:events";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { ReducerShard } from "#coordinator/reducer/client";
import {
  buildParameterLayout,
  type ParameterLayout,
  shardRanges,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { clipCoefficient, totalNorm } from "#lib/optim/index";
import { BulkClient } from "#lib/wire/bulk-client";
import type { MemberPass } from "#lib/wire/member";
import { median } from "./frame/compare.js";

const numShards = Number(process.argv[3] ?? 2);
const sharedMemory = process.argv[4] !== "sockets";
const numWorkers = 2;
const layout = buildParameterLayout(
  [
    { name: "matrices", shape: [50_257 + 1_024 + 12 * 12 * 768, 768] },
    { name: "vectors", shape: [12 * 13 * 768 + 2 * 768] },
  ],
  "bfloat16",
);

const life = { runId: "bench", epoch: 1 };
const passOf = (group: number): MemberPass => ({
  ...life,
  workerId: `worker-${group}`,
  secret: String(group),
});

interface WorkerOptions {
  readonly group: number;
  readonly addresses: readonly string[];
}
type Task =
  | { readonly kind: "push"; readonly step: number }
  | { readonly kind: "pull"; readonly version: number };

function work({ group, addresses }: WorkerOptions): void {
  const ranges = shardRanges(layout, numShards).map(({ start, end }) => ({
    start: wireOffsetBytes(layout, start),
    end: wireOffsetBytes(layout, end),
  }));
  const clients = addresses.map(
    (address) => new BulkClient({ address, security: {}, sharedMemory, pass: passOf(group) }),
  );
  const buffer = (fill: number): Uint8Array =>
    new Uint8Array(new SharedArrayBuffer(wireSizeBytes(layout))).fill(fill);
  const [gradient, parameters] = [buffer(0x3a), buffer(0)];
  const part = (bytes: Uint8Array, shard: number): Uint8Array =>
    bytes.subarray(ranges[shard]?.start, ranges[shard]?.end);
  const run = async (task: Task): Promise<void> => {
    await Promise.all(
      clients.map(async (client, shard) => {
        if (task.kind === "pull") {
          await client.pullParameters({ version: task.version }, part(parameters, shard));
          return;
        }
        const facts = { step: task.step, group, lease: group };
        await client.pushGradients(facts, part(gradient, shard));
      }),
    );
    parentPort?.postMessage("done");
  };
  parentPort?.on("message", (task: Task) => void run(task));
  parentPort?.postMessage("ready");
}

async function measure(numRounds: number): Promise<void> {
  const shards = await Promise.all(
    Array.from({ length: numShards }, async (_, shardIndex) =>
      ReducerShard.start({
        ...{ shardIndex, numShards, layout, gradientGroups: numWorkers },
        optimizer: {
          name: "adamw",
          settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 },
        },
        listenHost: "127.0.0.1",
        security: {},
        life,
      }),
    ),
  );
  await Promise.all(shards.map(async (shard) => shard.publishInitial(0)));
  for (const shard of shards) {
    for (let group = 0; group < numWorkers; group++) {
      await shard.changeFence({ kind: "admit", ...passOf(group) });
    }
  }
  const argv = process.argv.slice(2);
  const addresses = shards.map(({ address }) => address);
  const workers = Array.from({ length: numWorkers }, (_, group) => {
    const options: WorkerOptions = { group, addresses };
    return new Worker(fileURLToPath(import.meta.url), { workerData: options, argv });
  });
  await Promise.all(workers.map(async (worker) => once(worker, "message")));
  const onAll = async (task: Task): Promise<void> => {
    await Promise.all(
      workers.map(async (worker) => {
        const done = once(worker, "message");
        worker.postMessage(task);
        await done;
      }),
    );
  };
  const phases = ["push", "reduce", "apply", "pull", "total"] as const;
  const medianSeconds: Record<string, number> = {};
  const samples = phases.map((): number[] => []);
  let cpuAtStart = process.cpuUsage();
  for (let step = 0; step <= numRounds; step++) {
    const times = [performance.now()];
    for (const shard of shards) {
      await shard.openStep(step);
      for (let group = 0; group < numWorkers; group++) {
        const { workerId } = passOf(group);
        const lease = { id: group, step, group, workerId, isVerified: false };
        await shard.changeFence({ kind: "grant", lease });
      }
    }
    await onAll({ kind: "push", step });
    times.push(performance.now());
    const sums = await Promise.all(shards.map(async (shard) => shard.reduce(step)));
    const norm = totalNorm(sums.flatMap(({ blockSumsOfSquares }) => [...blockSumsOfSquares]));
    times.push(performance.now());
    const update = {
      ...{ learningRate: 1e-4, updateNumber: step + 1, gradientScale: clipCoefficient(norm, 1) },
    };
    await Promise.all(shards.map(async (shard) => shard.apply(step, update)));
    times.push(performance.now());
    await onAll({ kind: "pull", version: step + 1 });
    times.push(performance.now());
    if (step === 0) {
      cpuAtStart = process.cpuUsage(); // Before this: connections, the compiler's tiers.
      continue;
    }
    const first = times[0] ?? 0;
    for (let i = 1; i < times.length; i++) {
      samples[i - 1]?.push((times[i] ?? 0) - (times[i - 1] ?? 0));
    }
    samples[4]?.push((times[4] ?? 0) - first);
  }
  console.log(
    `${describe(layout)}, ${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}`,
  );
  phases.forEach((phase, i) => {
    const milliseconds = samples[i] ?? [];
    const middle = median(milliseconds);
    medianSeconds[phase] = middle / 1000;
    console.log(
      `${phase.padEnd(7)} median ${middle.toFixed(0)} ms, best ${Math.min(...milliseconds).toFixed(0)} ms`,
    );
  });
  const { user, system } = process.cpuUsage(cpuAtStart);
  // Tells more than the clock on a machine that does other things as well.
  console.log(`processor time a round: ${((user + system) / 1000 / numRounds).toFixed(0)} ms`);
  await Promise.all(workers.map(async (worker) => worker.terminate()));
  await Promise.all(shards.map(async (shard) => shard.close()));
  const { push = 0, reduce = 0, apply = 0, pull = 0, total = 0 } = medianSeconds;
  const gigabits = (numWorkers * wireSizeBytes(layout) * 8) / 1e9;
  const values = {
    "reduce-update-broadcast": reduce + apply + pull,
    "sync-round": total,
    "push-gbit-per-second": gigabits / push,
    "pull-gbit-per-second": gigabits / pull,
  };
  console.log(JSON.stringify({ values, check: {} }));
}

const describe = ({ numElements }: ParameterLayout): string =>
  `${(numElements / 1e6).toFixed(1)}M parameters, ${numWorkers} workers, ${numShards} shards`;

if (isMainThread) await measure(Number(process.argv[2] ?? 5));
else work(workerData as WorkerOptions);
