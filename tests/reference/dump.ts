/**
 * Writes what the Python scripts beside this file compare with transformers and torch.
 *
 * node dist/tests/reference/dump.js step|validation OUT.safetensors CONFIG.yaml [--key value ...]
 *
 * step: the first step's tokens, targets, summed gradients (before clipping), weights before and after.
 * validation: the validation blocks, tokens and targets.
 */
import { writeTensors } from "#lib/checkpoint/index";
import { loadConfig } from "#lib/config/index";
import { type Batch, integerField } from "#lib/core/batch";
import type { ShardArithmetic } from "#lib/optim/index";
import { trainLocal } from "#run/train-local";
import { prepareRun } from "#run/prepare";
import type { PreparedRun } from "#run/prepared-run";

interface DumpTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Token ids fit float32 exactly (below 2^24), so one element type serves the whole file. */
function batchTensors(batches: readonly Batch[]): DumpTensor[] {
  const numRows = batches.reduce((sum, batch) => sum + batch.numRows, 0);
  const flat = (key: "tokens" | "targets"): Float32Array =>
    Float32Array.from(batches.flatMap((batch) => [...integerField(batch, key)]));
  return (["tokens", "targets"] as const).map((name) => {
    const data = flat(name);
    return { name, shape: [numRows, data.length / numRows], data };
  });
}

/** Copies of every tensor of the flat space out of the shards' arrays. */
function slots(
  run: PreparedRun,
  prefix: string,
  shards: readonly ShardArithmetic[],
  arrayOf: (shard: ShardArithmetic) => Float32Array,
): DumpTensor[] {
  return run.job.layout.tensors.map(({ name, shape, offset, size }) => {
    const data = new Float32Array(size);
    for (const shard of shards) {
      const start = Math.max(offset, shard.range.start);
      const end = Math.min(offset + size, shard.range.end);
      if (start >= end) continue;
      const part = arrayOf(shard).subarray(start - shard.range.start, end - shard.range.start);
      data.set(part, start - offset);
    }
    return { name: `${prefix}.${name}`, shape, data };
  });
}

async function dumpStep(run: PreparedRun): Promise<DumpTensor[]> {
  process.env["TF_NUM_INTRAOP_THREADS"] = String(run.config.threads_per_worker);
  const { default: createEngine } = await import("#lib/tuning/engine");
  const engine = await createEngine({ ...run.job, jobId: "dump" });
  const tensors: DumpTensor[] = [];
  const outcome = await trainLocal(
    run,
    engine,
    {
      onGradients: async (_, shards) => {
        tensors.push(...slots(run, "gradient", shards, (shard) => shard.gradientSum));
        tensors.push(...slots(run, "before", shards, (shard) => shard.masters));
      },
    },
    1,
  );
  engine.close();
  const { loss, learningRate, gradientNorm } = outcome.steps[0] as (typeof outcome.steps)[number];
  const groups = Array.from({ length: run.config.gradient_groups }, (_, group) =>
    run.plan.microBatches(0, group),
  );
  return [
    ...tensors,
    ...slots(run, "after", outcome.shards, (shard) => shard.masters),
    ...batchTensors(groups.flat()),
    { name: "loss", shape: [1], data: Float32Array.of(loss) },
    { name: "learning_rate", shape: [1], data: Float32Array.of(learningRate) },
    { name: "gradient_norm", shape: [1], data: Float32Array.of(gradientNorm) },
  ];
}

const [what, file, ...args] = process.argv.slice(2);
if ((what !== "step" && what !== "validation") || file === undefined) {
  process.stderr.write(
    "usage: dump.js step|validation OUT.safetensors CONFIG.yaml [--key value]\n",
  );
  process.exit(2);
}
// torch would drop other values.
const { config } = await loadConfig([...args, "--dropout", "0"]);
const run = await prepareRun(config);
const tensors = what === "step" ? await dumpStep(run) : batchTensors(run.data.validation);
await writeTensors(file, tensors);
await run.close();
