import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { writeModelDirectory } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { RandomStream } from "#lib/core/random";
import { createModel } from "#lib/models/index";

interface TinyClassifier {
  readonly directory: string;
  readonly configFile: string;
  readonly remove: () => Promise<void>;
}

const tokenizer = join(packageRoot, "tests/fixtures/tokenizers/wordpiece");

/** A config.json of each encoder, small, over the tokenizer's vocabulary. */
const configs = {
  bert: { hidden_size: 32, intermediate_size: 48, num_attention_heads: 4, num_hidden_layers: 2 },
  roberta: {
    ...{ hidden_size: 32, intermediate_size: 48, num_attention_heads: 4, num_hidden_layers: 2 },
    ...{ pad_token_id: 1, type_vocab_size: 1 },
  },
  distilbert: { dim: 32, hidden_dim: 48, n_heads: 4, n_layers: 2 },
} as const;
export type TinyEncoder = keyof typeof configs;

/**
 * A directory with a small encoder that has no head, sentences (or pairs of them) in three classes, and
 * a job that trains a classifier.
 */
export async function createTinyClassifier(
  modelType: TinyEncoder,
  { pairs = false, settings = {} }: { pairs?: boolean; settings?: Record<string, unknown> } = {},
): Promise<TinyClassifier> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-classifier-"));
  const model = join(directory, "model");
  await writeTinyEncoder(model, modelType);
  const words = ["the", "state", "of", "union", "is", "strong", "and", "to", "in", "that"];
  const topics = ["peace", "law", "people"];
  const text = (seed: number): string =>
    Array.from({ length: 2 + (seed % 7) }, (_, i) => words[(seed * 3 + i * i) % 10]).join(" ");
  const rows = Array.from({ length: 60 }, (_, i) => {
    const topic = topics[(i * 7) % 3] ?? "";
    const own = `${text(i)} ${topic} ${topic} ${topic} ${topic}`;
    const row = pairs ? { sentence1: own, sentence2: text(i + 1) } : { text: own };
    return JSON.stringify({ ...row, label: `about ${topic}` });
  });
  await writeFile(join(directory, "rows.jsonl"), `${rows.join("\n")}\n`);
  const configFile = join(directory, "job.yaml");
  await writeFile(
    configFile,
    stringify({
      model_name_or_path: model,
      dataset: join(directory, "rows.jsonl"),
      validation_split: 0.2,
      output_dir: join(directory, "out"),
      max_length: 64,
      workers: 2,
      per_device_train_batch_size: 4,
      per_device_eval_batch_size: 5,
      learning_rate: 1e-2,
      max_steps: 25,
      save_strategy: "no",
      eval_on_start: true,
      threads_per_worker: 1,
      logging_steps: 2,
      use_cpu: true,
      ...settings,
    }),
  );
  return { directory, configFile, remove: () => rm(directory, { recursive: true, force: true }) };
}

/** A small encoder of random weights without a head. */
export async function writeTinyEncoder(
  directory: string,
  modelType: TinyEncoder,
  maxPositions = 66,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  await cp(tokenizer, directory, { recursive: true });
  const { model } = JSON.parse(await readFile(join(tokenizer, "tokenizer.json"), "utf8")) as {
    model: { vocab: Record<string, number> };
  };
  const config = {
    architectures: ["BaseModel"],
    model_type: modelType,
    vocab_size: Object.keys(model.vocab).length,
    max_position_embeddings: maxPositions,
    ...(modelType === "distilbert" ? {} : { layer_norm_eps: 1e-12 }),
    ...configs[modelType],
  };
  const source = join(directory, "config.json");
  await writeFile(source, `${JSON.stringify(config, null, 2)}\n`);
  const base = createModel(config, { task: "feature-extraction" });
  await writeModelDirectory(directory, {
    sourceDir: directory,
    dtype: "float32",
    // The hub's encoders have no prefix.
    tensors: base.weights.map(({ name, shape }, index) => ({
      name: name.slice(base.basePrefix.length),
      shape,
      read: () => valuesOf(name, shape, index),
    })),
  });
}

function valuesOf(name: string, shape: readonly number[], index: number): Float32Array {
  const size = shape.reduce((product, dim) => product * dim, 1);
  if (/LayerNorm\.weight$|norm\.weight$/i.test(name)) return new Float32Array(size).fill(1);
  const stream = new RandomStream(1, "test", index);
  // Wide embeddings, so that words differ at once.
  const width = name.includes("embeddings") ? 2 : 0.5;
  return Float32Array.from({ length: size }, () => (stream.nextFloat64() - 0.5) * width);
}
