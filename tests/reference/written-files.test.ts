import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  type ModelTensor,
  ModelWeights,
  openSafetensors,
  writeModelDirectory,
  writeSafetensors,
} from "#lib/checkpoint/index";
import {
  AdapterDirectory,
  adaptedModules,
  completeLoraConfig,
  defaultLoraConfig,
  type LoraConfig,
  loraKey,
  rankOf,
  adapterKey,
  scaleOf,
  writeAdapterDirectory,
} from "#lib/checkpoint/peft/index";
import type { FloatDtype } from "#lib/core/dtype";
import { packageRoot } from "#lib/core/paths";
import { adapterFacts } from "#lib/models/facts";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { needsPeers, runPeers } from "#tests/support/peers";
import { createTinyClassifier } from "#tests/support/tiny-classifier";
import { createTinyJob } from "#tests/support/tiny-job";
import { prepareTinyRun } from "#tests/support/tiny-run";

// Files of ours in transformers and peft: see test_written_files.py, which does the comparing.

const huggingface = (...parts: string[]): string =>
  join(packageRoot, "tests/fixtures/huggingface", ...parts);

const bases = [
  ["base_llama", "llama", "causal-lm"],
  ["base_gpt2", "gpt2", "causal-lm"],
  ["base_qwen2", "qwen2", "causal-lm"],
  ["base_bert_seqcls", "bert", "classifier"],
] as const;

interface Case {
  readonly name: string;
  readonly kind: "model" | "adapter" | "run" | "classifier";
  readonly [fact: string]: unknown;
}

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-peers-"));
});
after(() => rm(directory, { recursive: true, force: true }));

async function compare(name: string, cases: readonly Case[]): Promise<void> {
  const manifest = join(directory, `${name}.json`);
  await writeFile(manifest, JSON.stringify(cases));
  const lines = (await runPeers("test_written_files.py", [manifest])).trimEnd().split("\n");
  assert.deepEqual(
    lines.map((line) => line.split(":", 1)[0]),
    cases.map((one) => one.name),
  );
}

async function rewriteModel(
  sourceDir: string,
  name: string,
  dtype: FloatDtype,
  maxShardBytes = 1e9,
): Promise<string> {
  const target = join(directory, name);
  await mkdir(target);
  const weights = await ModelWeights.open(sourceDir);
  await writeModelDirectory(target, {
    sourceDir,
    dtype,
    maxShardBytes,
    tensors: weights.names().map((tensor) => ({
      name: tensor,
      shape: weights.info(tensor).shape,
      read: () => weights.readFloat32(tensor),
    })),
  });
  await weights.close();
  return target;
}

/** GPT-2 as the hub has it: no prefix. */
async function hubGpt2(): Promise<string> {
  const target = join(directory, "hub-gpt2");
  await cp(huggingface("base_gpt2"), target, { recursive: true });
  const file = await openSafetensors(huggingface("base_gpt2", "model.safetensors"));
  const short = (name: string): string => name.replace(/^transformer\./, "");
  const entries = [...file.tensors.values()].map((entry) => ({
    ...entry,
    name: short(entry.name),
  }));
  await writeSafetensors(join(target, "model.safetensors"), entries, (name) =>
    file.readBytes(`transformer.${name}`),
  );
  await file.close();
  return target;
}

/** Llama with the configuration that transformers 4 wrote. */
async function oldLlama(): Promise<string> {
  const target = join(directory, "old-llama");
  await cp(huggingface("base_llama"), target, { recursive: true });
  const file = join(target, "config.json");
  const text = await readFile(file, "utf8");
  const old = text
    .replace('"dtype"', '"torch_dtype"')
    .replace(/"rope_parameters": \{[^}]*\}/, '"rope_theta": 10000.0,\n  "rope_scaling": null');
  await writeFile(file, old);
  return target;
}

test(
  "model directories load in transformers and give its logits to the bit",
  needsPeers(),
  async () => {
    const cases: Case[] = [];
    const add = async (
      [source, from, head]: readonly [source: string, from: string, head: string],
      dtype: FloatDtype,
      maxShardBytes?: number,
    ): Promise<void> => {
      const name = `${from}-${dtype}${maxShardBytes === undefined ? "" : "-sharded"}`;
      const ours = await rewriteModel(source, name, dtype, maxShardBytes);
      const base = bases.find(([, type]) => from.endsWith(type))?.[0] ?? "";
      cases.push({ kind: "model", name, ours, theirs: huggingface(base), head, dtype });
    };
    for (const [base, modelType, head] of bases) {
      for (const dtype of ["float32", "bfloat16", "float16"] as const) {
        await add([huggingface(base), modelType, head], dtype);
      }
      await add([huggingface(base), modelType, head], "float32", 4_000);
    }
    await add([await hubGpt2(), "hub-gpt2", "causal-lm"], "float32");
    await add([await oldLlama(), "old-llama", "causal-lm"], "bfloat16");
    await compare("models", cases);
  },
);

/** Numbers between -0.5 and 0.5 that look random and are the same everywhere. */
function numbers(size: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

test("adapters load in peft and mean there what they mean here", needsPeers(), async () => {
  const cases: Case[] = [];
  for (const [base, modelType, head] of bases) {
    for (const targets of ["default", "all-linear"] as const) {
      const name = `ad_${base.slice("base_".length)}_${targets}`;
      const ours = join(directory, name);
      await rewriteAdapter(huggingface(name), ours);
      const place = { base: huggingface(base), head };
      cases.push({ kind: "adapter", name, ours, theirs: huggingface(name), ...place });
    }
    const changes: readonly Partial<LoraConfig>[] = [
      { r: 3, lora_alpha: 6 },
      { target_modules: "all-linear", r: 4, lora_alpha: 16, use_rslora: true },
      { target_modules: "all-linear", r: 2, lora_alpha: 4, use_dora: true },
      ...(modelType === "llama"
        ? [
            {
              ...{
                target_modules: ["q_proj", "up_proj", "down_proj"],
                exclude_modules: ["up_proj"],
              },
              ...{ layers_to_transform: [0], rank_pattern: { "mlp.down_proj": 3 } },
              alpha_pattern: { q_proj: 5 },
            },
          ]
        : []),
    ];
    for (const [index, change] of changes.entries()) {
      const name = `${modelType}-random-${index}`;
      const ours = join(directory, name);
      const scales = await writeRandomAdapter(ours, huggingface(base), modelType, head, change);
      const place = { base: huggingface(base), head };
      cases.push({ kind: "adapter", name, ours, theirs: null, ...place, scales });
    }
  }
  await compare("adapters", cases);
});

async function rewriteAdapter(source: string, target: string): Promise<void> {
  await mkdir(target);
  const adapter = await AdapterDirectory.open(source);
  const matrices = adapter.modules.flatMap(({ path, rank, numInputs, numOutputs }) => [
    tensor(loraKey(path, "A"), [rank, numInputs], () => adapter.readPart(path, "A")),
    tensor(loraKey(path, "B"), [numOutputs, rank], () => adapter.readPart(path, "B")),
  ]);
  const saved = adapter.savedWeights.map((name) =>
    tensor(adapterKey(name), adapter.savedInfo(name).shape, () => adapter.readSaved(name)),
  );
  const tensors = [...matrices, ...saved];
  await writeAdapterDirectory(target, { config: adapter.config, tensors, dtype: "float32" });
  await adapter.close();
}

/** @returns the scale of each module by its path */
async function writeRandomAdapter(
  target: string,
  base: string,
  modelType: string,
  head: string,
  change: Partial<LoraConfig>,
): Promise<Record<string, number>> {
  await mkdir(target);
  const weights = await ModelWeights.open(base);
  const shapes = weights.names().map((name) => ({ name, shape: weights.info(name).shape }));
  await weights.close();
  const model = { facts: adapterFacts({ model_type: modelType }), weights: shapes };
  const task_type = head === "classifier" ? "SEQ_CLS" : "CAUSAL_LM";
  const config = completeLoraConfig(
    { ...defaultLoraConfig, task_type, base_model_name_or_path: base, ...change },
    model,
  );
  const modules = adaptedModules(config, model);
  const matrices = modules.flatMap(({ path, numInputs, numOutputs }, index) => {
    const rank = rankOf(config, path);
    return [
      tensor(loraKey(path, "A"), [rank, numInputs], (n) => numbers(n, 2 * index)),
      tensor(loraKey(path, "B"), [numOutputs, rank], (n) => numbers(n, 2 * index + 1)),
      ...(config.use_dora
        ? [
            tensor(loraKey(path, "magnitude"), [numOutputs], (n) =>
              numbers(n, 3 * index + 2).map((value) => 1 + value),
            ),
          ]
        : []),
    ];
  });
  const saved = shapes
    .filter(({ name }) => config.modules_to_save?.includes(name.split(".", 1)[0] ?? "") === true)
    .map(({ name, shape }) => tensor(adapterKey(name), shape, (n) => numbers(n, 99)));
  const tensors = [...matrices, ...saved];
  await writeAdapterDirectory(target, { config, tensors, dtype: "float32" });
  return Object.fromEntries(modules.map(({ path }) => [path, scaleOf(config, path)]));
}

function tensor(
  name: string,
  shape: readonly number[],
  read: (size: number) => Float32Array | Promise<Float32Array>,
): ModelTensor {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return { name, shape, read: () => read(size) };
}

test(
  "an adapter that a run has trained loads in peft and merges there",
  needsPeers(),
  async (t) => {
    const job = await createTinyJob({
      ...{ use_peft: true, lora_r: 4, lora_alpha: 6, use_rslora: true, learning_rate: 3e-2 },
      lora_target_modules: ["q_proj", "down_proj"],
    });
    t.after(job.remove);
    const outcome = await lockstepCommand(
      ["train-local", job.configFile],
      join(job.directory, "cache"),
    );
    assert.equal(outcome.code, 0, outcome.stderr);
    const [ours, base] = [join(job.directory, "out"), join(job.directory, "model")];
    const adapter = await AdapterDirectory.open(ours);
    const scales = Object.fromEntries(adapter.modules.map(({ path }) => [path, 6 / Math.sqrt(4)]));
    await adapter.close();
    const merged = join(job.directory, "merged");
    const merging = await lockstepCommand(
      ["merge-adapter", ours, merged],
      join(job.directory, "cache"),
    );
    assert.equal(merging.code, 0, merging.stderr);
    const place = { base, head: "causal-lm", merged };
    await compare("trained", [
      { kind: "adapter", name: "trained", ours, theirs: null, ...place, scales },
    ]);
  },
);

test("a run's output is read by what reads the Trainer's", needsPeers(), async () => {
  const place = join(directory, "run");
  await mkdir(place);
  await prepareTinyRun(place);
  const run = async (name: string, ...args: string[]): Promise<Case> => {
    const output = join(place, name);
    const outcome = await lockstepCommand(
      ["train", join(place, "job.yaml"), "--json-logs", "--output_dir", output, ...args],
      join(place, "cache"),
    );
    assert.equal(outcome.code, 0, outcome.stderr);
    return { kind: "run", name, output, newest: "checkpoint-6" };
  };
  await compare("runs", [
    await run("plain"),
    await run("best", "--load_best_model_at_end", "--include_num_input_tokens_seen", "all"),
    await run("narrow", "--save_dtype", "bfloat16", "--max_shard_size", "20KB"),
    await run("shards", "--reducer_processes", "2", "--max_shard_size", "50KB"),
    { ...(await run("average", "--ema_decay", "0.5")), average: "ema" },
  ]);
  const log = await readFile(join(place, "shards", "logs", "reducer-2.log"), "utf8");
  assert.match(log, /wrote \S+\/\.files\.\S+\/model-\d{5}-of-\d{5}\.safetensors/);
});

test(
  "a trained classifier has its evaluation's loss and scores in transformers",
  needsPeers(),
  async () => {
    const cases: Case[] = [];
    for (const [type, pairs] of [
      ["bert", true],
      ["roberta", true],
      ["distilbert", false],
    ] as const) {
      const settings = { max_steps: 8, bf16: false };
      const job = await createTinyClassifier(type, { pairs, settings });
      after(() => job.remove());
      const rows = join(job.directory, "rows.jsonl");
      const outcome = await lockstepCommand(
        ["train", job.configFile, "--json-logs", "--eval_dataset", rows],
        join(job.directory, "cache"),
      );
      assert.equal(outcome.code, 0, outcome.stderr);
      cases.push({ kind: "classifier", name: type, output: join(job.directory, "out"), rows });
    }
    await compare("classifiers", cases);
  },
);
