import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { importGguf } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";

/**
 * Puts a tiny Llama, two texts and `job.yaml` into `directory`: six steps, evaluated and saved every
 * second one, on an engine that needs no TensorFlow.
 */
export async function prepareTinyRun(directory: string): Promise<void> {
  const source = join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf");
  await importGguf(source, join(directory, "model"));
  const words = ["the", "state", "of", "union", "is", "strong", "and", "peace", "law", "people"];
  for (const seed of [1, 2]) {
    const text = Array.from({ length: 400 }, (_, i) => words[(i * 7 + i * i * seed) % 10]);
    await writeFile(join(directory, `${seed}.txt`), text.join(" "));
  }
  await writeFile(
    join(directory, "job.yaml"),
    [
      `model_name_or_path: ${join(directory, "model")}`,
      `dataset: ${join(directory, "1.txt")}`,
      `eval_dataset: ${join(directory, "2.txt")}`,
      `engine_module: ${join(packageRoot, "dist/tests/support/fake-engine.js")}`,
      "max_length: 16",
      "max_eval_samples: 5",
      "per_device_train_batch_size: 2",
      "per_device_eval_batch_size: 2",
      "learning_rate: 1e-3",
      "max_steps: 6",
      "logging_steps: 2",
      "eval_strategy: steps",
      "eval_steps: 2",
      "save_steps: 2",
      "threads_per_worker: 1",
      "use_cpu: true",
    ].join("\n"),
  );
}
