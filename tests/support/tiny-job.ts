import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { importGguf } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";

const words = ["the", "state", "of", "union", "is", "strong", "and", "peace", "law", "people"];

/** A fixed text that no tokenizer finds periodic. */
export const document = (seed: number): string =>
  Array.from({ length: 400 }, (_, i) => words[(i * 7 + ((i * i * seed) >> 3)) % words.length]).join(
    " ",
  );

export interface TinyJob {
  readonly directory: string;
  readonly configFile: string;
  readonly remove: () => Promise<void>;
}

/** A directory with a real but tiny Llama, four texts and a job file that trains on three of them. */
export async function createTinyJob(
  settings: Readonly<Record<string, unknown>> = {},
): Promise<TinyJob> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-job-"));
  await importGguf(
    join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"),
    join(directory, "model"),
  );
  const texts = [1, 2, 3, 4].map((seed) => join(directory, `${seed}.txt`));
  for (const [index, file] of texts.entries()) await writeFile(file, document(index + 1));
  const configFile = join(directory, "job.yaml");
  await writeFile(
    configFile,
    stringify({
      model_name_or_path: join(directory, "model"),
      dataset: texts.slice(0, 3),
      eval_dataset: texts[3],
      output_dir: join(directory, "out"),
      max_length: 16,
      max_eval_samples: 4,
      workers: 2,
      per_device_train_batch_size: 2,
      gradient_accumulation_steps: 2,
      per_device_eval_batch_size: 2,
      learning_rate: 1e-3,
      lr_scheduler_type: "constant",
      max_steps: 6,
      save_strategy: "no",
      eval_on_start: true,
      sample_prompt: "the state",
      sample_max_new_tokens: 4,
      threads_per_worker: 1,
      logging_steps: 2,
      use_cpu: true,
      ...settings,
    }),
  );
  return { directory, configFile, remove: () => rm(directory, { recursive: true, force: true }) };
}
