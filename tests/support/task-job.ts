import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { createTinyJob, document, type TinyJob } from "./tiny-job.js";

const words = ["the", "state", "of", "union", "is", "strong", "and", "peace", "law", "people"];
const some = (seed: number, count: number): string =>
  Array.from({ length: count }, (_, i) => words[(seed * 3 + i * i + 1) % words.length]).join(" ");

/** Texts, answers and general texts beside a tiny Llama, with keys of a job over them. */
export async function createTaskJob(
  settings: (files: {
    readonly texts: string;
    readonly answers: string;
    readonly general: string;
    readonly labelled: string;
    readonly pairs: string;
  }) => Readonly<Record<string, unknown>>,
): Promise<TinyJob> {
  const job = await createTinyJob({
    ...{ eval_dataset: null, validation_split: 0.2, sample_prompt: null, max_steps: 4 },
    ...{ global_batch_size: 8, gradient_groups: 2, learning_rate: 1e-2, logging_steps: 1 },
    max_eval_samples: null,
  });
  const write = async (name: string, rows: readonly object[]): Promise<string> => {
    const file = join(job.directory, name);
    await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    return file;
  };
  const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
  const files = {
    texts: await write(
      "texts.jsonl",
      numbers(8).map((i) => ({ text: document(i + 1).slice(0, 240) })),
    ),
    answers: await write(
      "answers.jsonl",
      numbers(24).map((i) => ({
        prompt: some(i, 1 + (i % 4)),
        completion: some(i + 7, 1 + (i % 3)),
      })),
    ),
    pairs: await write(
      "pairs.jsonl",
      numbers(12).map((i) => ({
        prompt: some(i, 2),
        chosen: ` ${some(i + 3, 2)}`,
        rejected: ` ${some(i + 5, 3)}`,
      })),
    ),
    labelled: await write(
      "labelled.jsonl",
      numbers(20).map((i) => ({
        text: some(i, 2 + (i % 4)),
        label: i % 3 === 0 ? "loud" : "calm",
      })),
    ),
    general: await write(
      "general.jsonl",
      numbers(6).map((i) => ({ text: document(i + 20).slice(0, 200) })),
    ),
  };
  const before = parse(await readFile(job.configFile, "utf8")) as Record<string, unknown>;
  await writeFile(job.configFile, stringify({ ...before, ...settings(files) }));
  return job;
}
