import { join } from "node:path";
import { ModelWeights } from "#lib/checkpoint/index";
import { writeRandomModel } from "#bench/shards/random-model";
import { createTinyJob, type TinyJob } from "./tiny-job.js";

/** A tiny job whose model's first tensor is larger than two shards of four, and which is saved in several files. */
export async function createLargerJob(
  settings: Readonly<Record<string, unknown>>,
): Promise<TinyJob & { readonly args: (output: string, ...more: string[]) => string[] }> {
  const job = await createTinyJob({ max_shard_size: "600KB", eval_on_start: false, ...settings });
  const model = join(job.directory, "larger");
  const shape = { hidden: 64, layers: 1, intermediate: 128, heads: 4, vocabulary: 4_500 };
  await writeRandomModel(model, shape);
  return {
    ...job,
    args: (output, ...more) => [
      ...["train", job.configFile, "--json-logs", "--model_name_or_path", model],
      ...["--output_dir", join(job.directory, output), ...more],
    ],
  };
}

/** Bytes of every tensor of a model, as stored. */
export async function storedTensors(directory: string): Promise<ReadonlyMap<string, Buffer>> {
  const weights = await ModelWeights.open(directory);
  const tensors = new Map<string, Buffer>();
  for (const name of weights.names()) {
    const bytes = Buffer.alloc(weights.info(name).sizeBytes);
    await weights.readBytes(name, bytes, 0);
    tensors.set(name, bytes);
  }
  await weights.close();
  return tensors;
}
