import { mkdtemp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { importGguf, ModelWeights } from "#lib/checkpoint/index";
import { writeSafetensors } from "#lib/checkpoint/safetensors-writer";
import { packageRoot } from "#lib/core/paths";
import { document } from "#tests/support/tiny-job";

/** Steps of a schedule's run. */
export const totalSteps = 6;
export const gradientGroups = 4;
/** Of the large model: its gradients are 3.4 MB, four frames on one shard and two on each of two. */
const largeIntermediateSize = 4096;

/** What the runs of one harness read and never write: two models and a text. */
export interface ChaosInputs {
  readonly directory: string;
  readonly remove: () => Promise<void>;
}

export async function createInputs(): Promise<ChaosInputs> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-chaos-"));
  const small = join(directory, "small");
  await importGguf(join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"), small);
  await widen(small, join(directory, "large"));
  for (const seed of [1, 2]) await writeFile(join(directory, `${seed}.txt`), document(seed));
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}

/** The same model with wider feed-forward layers, of repeated values. */
async function widen(from: string, into: string): Promise<void> {
  await mkdir(into);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]) {
    await writeFile(join(into, name), await readFile(join(from, name)));
  }
  const config = JSON.parse(await readFile(join(from, "config.json"), "utf8")) as object;
  const wide = { ...config, intermediate_size: largeIntermediateSize };
  await writeFile(join(into, "config.json"), JSON.stringify(wide));
  const weights = await ModelWeights.open(from);
  try {
    const entries = weights.names().map((name) => {
      const { shape } = weights.info(name);
      const [rows = 1, columns = 1] = shape;
      if (!name.includes(".mlp.")) return { name, dtype: "F32" as const, shape };
      const widened = name.includes("down_proj")
        ? [rows, largeIntermediateSize]
        : [largeIntermediateSize, columns];
      return { name, dtype: "F32" as const, shape: widened };
    });
    await writeSafetensors(join(into, "model.safetensors"), entries, async (name) => {
      const values = await weights.readFloat32(name);
      const shape = entries.find((entry) => entry.name === name)?.shape ?? [];
      const wide = new Float32Array(shape.reduce((product, size) => product * size, 1));
      for (let i = 0; i < wide.length; i++) wide[i] = (values[i % values.length] ?? 0) / 8;
      return new Uint8Array(wide.buffer);
    });
  } finally {
    await weights.close();
  }
}

interface JobFacts {
  readonly inputs: ChaosInputs;
  readonly isReal: boolean;
  readonly isLarge: boolean;
  readonly numWorkers: number;
  readonly numShards: number;
  readonly totalSteps: number;
  /** HOST:PORT. */
  readonly listen: string;
  readonly advertiseHost: string;
  readonly outputDir: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** Writes a run's configuration. */
export async function writeJob(file: string, facts: JobFacts): Promise<void> {
  const { inputs, isReal, isLarge, numWorkers, numShards } = facts;
  const settings = {
    model_name_or_path: join(inputs.directory, isLarge ? "large" : "small"),
    dataset: join(inputs.directory, "1.txt"),
    eval_dataset: join(inputs.directory, "2.txt"),
    output_dir: facts.outputDir,
    resume_from_checkpoint: "auto",
    bf16: false,
    max_length: 16,
    max_eval_samples: 6,
    per_device_train_batch_size: 1,
    per_device_eval_batch_size: 2,
    global_batch_size: 2 * gradientGroups,
    gradient_groups: gradientGroups,
    learning_rate: 1e-3,
    lr_scheduler_type: "constant",
    max_steps: facts.totalSteps,
    logging_steps: 1,
    eval_strategy: "steps",
    eval_steps: 3,
    save_steps: 2,
    save_total_limit: 3,
    workers: numWorkers,
    reducer_shards: numShards,
    threads_per_worker: 1,
    use_cpu: true,
    metrics_port: null,
    listen: facts.listen,
    advertise_host: facts.advertiseHost,
    heartbeat_interval_ms: 200,
    heartbeat_timeout_ms: 3_000,
    lease_timeout_ms: 20_000,
    ...(isReal ? {} : { engine_module: fakeEngine }),
    ...facts.settings,
  };
  await writeFile(file, stringify(settings));
}

export const fakeEngine = join(packageRoot, "dist/tests/support/fake-engine.js");
