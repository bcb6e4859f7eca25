/**
 * Time of a step's reduction for 124M parameters (GPT-2) over two threads: sum of two bfloat16
 * gradients, norm, clip, AdamW with bfloat16 output. Run: node dist/bench/reduce.js [numRounds]
 * The last line is JSON for the table.
 */
import { once } from "node:events";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import {
  buildParameterLayout,
  type ElementRange,
  type ParameterLayout,
  shardRanges,
} from "#lib/core/parameter-layout";
import { clipCoefficient, ShardArithmetic, totalNorm } from "#lib/optim/index";
import { median } from "./frame/compare.js";

const numShards = 2;
/** A matrix of GPT-2's 124M parameters and a vector region of its size. */
const layout = buildParameterLayout(
  [
    { name: "matrices", shape: [50_257 + 1_024 + 12 * 12 * 768, 768] },
    { name: "vectors", shape: [12 * 13 * 768 + 2 * 768] },
  ],
  "bfloat16",
);

const adamW = {
  name: "adamw",
  settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 },
};

type Task =
  | { readonly kind: "add-first" }
  | { readonly kind: "add-last" }
  | { readonly kind: "adamw"; readonly gradientScale: number; readonly updateNumber: number };

async function serve(range: ElementRange): Promise<void> {
  const shard = await ShardArithmetic.create(layout, range, adamW);
  shard.masters.fill(0.02);
  // bfloat16 1e-3 everywhere, in the vector region some other small float32.
  const groups = [0, 1].map(
    () => new Uint8Array(new Uint16Array(shard.wireBytes / 2).fill(0x3a83).buffer),
  );
  parentPort?.on("message", (task: Task) => {
    const startedAt = performance.now();
    let blockSums = new Float64Array();
    if (task.kind === "add-first") shard.addGroup(groups[0] as Uint8Array, true);
    else if (task.kind === "add-last")
      blockSums = shard.addLastGroup(groups[1] as Uint8Array, false);
    else {
      shard.apply({
        learningRate: 1e-4,
        updateNumber: task.updateNumber,
        gradientScale: task.gradientScale,
      });
      shard.publish();
    }
    parentPort?.postMessage({ blockSums, ms: performance.now() - startedAt });
  });
  parentPort?.postMessage("ready");
}

async function measure(numRounds: number): Promise<void> {
  const startedAt = performance.now();
  const threads = shardRanges(layout, numShards).map(
    (range) => new Worker(fileURLToPath(import.meta.url), { workerData: range }),
  );
  const next = async (thread: Worker): Promise<unknown> => (await once(thread, "message"))[0];
  await Promise.all(threads.map(next));
  const createMs = performance.now() - startedAt;
  const onAll = async (task: Task) => {
    const from = performance.now();
    const replies = (await Promise.all(
      threads.map(async (thread) => {
        const reply = next(thread);
        thread.postMessage(task);
        return reply;
      }),
    )) as { blockSums: Float64Array }[];
    return { ms: performance.now() - from, replies };
  };
  const samples: Record<string, number[]> = {
    addFirst: [],
    addLastAndNorm: [],
    adamW: [],
    total: [],
  };
  let norm = 0;
  for (let round = 0; round <= numRounds; round++) {
    const first = await onAll({ kind: "add-first" });
    const last = await onAll({ kind: "add-last" });
    norm = totalNorm(last.replies.flatMap(({ blockSums }) => [...blockSums]));
    const gradientScale = clipCoefficient(norm, 1);
    const adamW = await onAll({ kind: "adamw", gradientScale, updateNumber: round + 1 });
    if (round === 0) continue; // Warm-up: the compiler's tiers.
    samples["addFirst"]?.push(first.ms);
    samples["addLastAndNorm"]?.push(last.ms);
    samples["adamW"]?.push(adamW.ms);
    samples["total"]?.push(first.ms + last.ms + adamW.ms);
  }
  console.log(
    `${describe(layout)}, ${numShards} threads, ${cpus()[0]?.model}, Node ${process.version}`,
  );
  console.log(`memory created and touched in ${createMs.toFixed(0)} ms; gradient norm ${norm}`);
  for (const [name, values] of Object.entries(samples)) {
    console.log(
      `${name.padEnd(16)} median ${median(values).toFixed(1)} ms, best ${Math.min(...values).toFixed(1)} ms`,
    );
  }
  await Promise.all(threads.map(async (thread) => thread.terminate()));
  const seconds = median(samples["total"] ?? []) / 1000;
  console.log(JSON.stringify({ values: { reduction: seconds }, check: { norm } }));
}

const describe = ({ numElements }: ParameterLayout): string =>
  `${(numElements / 1e6).toFixed(1)}M parameters`;

if (isMainThread) await measure(Number(process.argv[2] ?? 10));
else await serve(workerData as ElementRange);
