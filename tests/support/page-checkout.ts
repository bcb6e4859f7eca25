import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { packageRoot } from "#lib/core/paths";
import { writeNamedModels, writeTinyChatModel } from "./named-models.js";

// A directory that looks like a checkout, in which what the pages tell a person to type is typed: with tiny models
// under the names of real ones, one step instead of many, and what stands for a person's own files.

export interface PageCheckout {
  readonly directory: string;
  readonly path: (...parts: string[]) => string;
  /** `lockstep ARGS` there. */
  readonly run: (args: readonly string[]) => PageRun;
  readonly remove: () => Promise<void>;
}

interface PageRun {
  readonly child: ChildProcess;
  readonly ended: Promise<[number | null, string]>;
}

export async function createPageCheckout(): Promise<PageCheckout> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-pages-"));
  const path = (...parts: string[]): string => join(directory, ...parts);
  for (const name of ["bin", "examples"]) await symlink(join(packageRoot, name), path(name));
  await writeNamedModels(path("cache"));
  await ownFiles(path);
  return {
    ...{ directory, path },
    run: (args) => run(directory, args),
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}

/** Files that a person has: a job, and those of other tools with their data. */
async function ownFiles(path: PageCheckout["path"]): Promise<void> {
  const fixtures = join(packageRoot, "tests/fixtures");
  await writeTinyChatModel(path("models/llama3"));
  await mkdir(path("data"));
  for (const name of ["dataset_info.json", "greetings.json", "sums.jsonl"]) {
    await copyFile(join(fixtures, "configs/data", name), path("data", name));
  }
  const rows = Array.from({ length: 20 }, (_, i) => ({
    instruction: `Add ${i} and ${i + 1}.`,
    output: String(2 * i + 1),
  }));
  await writeFile(
    path("data/instructions.jsonl"),
    rows.map((row) => JSON.stringify(row)).join("\n"),
  );
  await copyFile(
    join(fixtures, "configs/llamafactory_full_sft.yaml"),
    path("llama3_full_sft.yaml"),
  );
  await copyFile(join(fixtures, "configs/axolotl_lora_1b.yml"), path("lora-1b.yml"));
  await copyFile(join(fixtures, "tiny-gguf/tiny.gguf"), path("tiny.gguf"));
  const review = (i: number): string => `"review ${i}, in short",${i % 2 === 0 ? "good" : "bad"}`;
  const reviews = ["review,label", ...Array.from({ length: 4 }, (_, i) => review(i))];
  await writeFile(path("reviews.csv"), reviews.join("\n"));
  const job = {
    ...{ model_name_or_path: "models/llama3", dataset: "examples/data/chats.jsonl" },
    output_dir: "runs/job",
  };
  await writeFile(path("job.yaml"), stringify(job));
}

/** Instead of the sizes of a real run, whatever file or flag gives them. */
export const small: Readonly<Record<string, string>> = {
  max_steps: "1",
  max_length: "512",
  max_samples: "40",
  max_eval_samples: "2",
  sample_max_new_tokens: "2",
  per_device_train_batch_size: "1",
  per_device_eval_batch_size: "1",
  threads_per_worker: "1",
  bf16: "false",
  use_cpu: "true",
};

/** For what is about commands, not about numbers. */
export const withoutTensorFlow = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
};

function run(directory: string, args: readonly string[]): PageRun {
  const child = spawn(process.execPath, [join(directory, "bin/lockstep"), ...args], {
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LOCKSTEP_CACHE: join(directory, "cache") },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
  const ended = new Promise<[number | null, string]>((resolve) => {
    child.on("close", (code) => resolve([code, output]));
  });
  return { child, ended };
}

/** A command that trains, made small: flags that say otherwise go. */
export function madeSmall(
  args: readonly string[],
  but: Readonly<Record<string, string>> = {},
): string[] {
  const forced = { ...small, ...but };
  const kept: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const word = args[i] ?? "";
    const key = word.startsWith("--") ? word.slice(2).replaceAll("-", "_") : "";
    if (key in forced) {
      if (!(args[i + 1] ?? "--").startsWith("--")) i++;
    } else kept.push(word);
  }
  return [...kept, ...Object.entries(forced).flatMap(([key, value]) => [`--${key}`, value])];
}

export const examples = readdirSync(join(packageRoot, "examples")).filter((name) =>
  /\.ya?ml$/.test(name),
);

/** Trains an example, for one step. */
export async function trainExample(
  { run: lockstep }: PageCheckout,
  name: string,
  but: Readonly<Record<string, string>> = {},
): Promise<void> {
  const args = ["train", `examples/${name}`, "--disable_tqdm", "true"];
  const [code, text] = await lockstep(madeSmall(args, but)).ended;
  assert.equal(code, 0, `${name}:\n${text}`);
}
