import assert from "node:assert/strict";
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights, writeModelDirectory } from "#lib/checkpoint/index";
import { AdapterDirectory } from "#lib/checkpoint/peft/index";
import { mastersOf, type RunArguments, runJob } from "#tests/support/job-runs";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// An adapter that is trained further, and the base model that adapters are bound to.

let job: TinyJob;
let adapter = "";
before(async () => {
  job = await createTinyJob({
    ...{ use_peft: true, lora_r: 4, lora_alpha: 6, lora_target_modules: ["q_proj", "up_proj"] },
    ...{ use_dora: true, lora_rank_pattern: { up_proj: 2 }, lora_modules_to_save: ["model.norm"] },
    ...{ learning_rate: 1e-2, max_steps: 2, bf16: false, sample_prompt: null },
  });
  const first = await run("train-local", "first");
  assert.equal(first.code, 0, first.stderr);
  adapter = join(job.directory, "first");
});
after(() => job.remove());

const run = (...[command, name, args]: RunArguments) => runJob(job, command, name, args);

/** The job without its options of adapters. */
async function plainJob(): Promise<TinyJob> {
  const text = await readFile(job.configFile, "utf8");
  const configFile = join(job.directory, "plain.yaml");
  const kept = text
    .replace(/^(lora_\w+|use_dora):.*\n((?: +.*|- .*)\n)*/gm, "")
    .concat(`adapter_name_or_path: ${adapter}\n`);
  await writeFile(configFile, kept);
  return { ...job, configFile };
}

/** A base model of which one weight is another one. */
async function changedBase(): Promise<string> {
  const [source, target] = [join(job.directory, "model"), join(job.directory, "changed")];
  await cp(source, target, { recursive: true });
  const weights = await ModelWeights.open(source);
  await writeModelDirectory(target, {
    ...{ sourceDir: source, dtype: weights.dtype() },
    tensors: weights.names().map((name) => ({
      ...{ name, shape: weights.info(name).shape },
      read: async () => {
        const values = await weights.readFloat32(name);
        return name === "model.norm.weight" ? values.map((value) => 2 * value) : values;
      },
    })),
  });
  await weights.close();
  return target;
}

test("training goes on with an adapter's values and settings, to the same bits everywhere", async () => {
  const plain = await plainJob();
  const still = ["--learning_rate", "0", "--max_steps", "1"];
  const unmoved = await runJob(plain, "train-local", "unmoved", still);
  assert.equal(unmoved.code, 0, unmoved.stderr);
  assert.match(unmoved.lines.join("\n"), /DoRA of rank 2 and 4 on \d+ modules/);
  assert.match(unmoved.lines.join("\n"), /they begin with the adapter of .*first/);
  const [before, later] = [
    await AdapterDirectory.open(adapter),
    await AdapterDirectory.open(join(job.directory, "unmoved")),
  ];
  assert.deepEqual(later.config, before.config);
  assert.equal(await later.digest(), await before.digest());
  assert.deepEqual(later.metadata, before.metadata);
  assert.match(before.metadata["lockstep.base_model_sha256"] ?? "", /^[0-9a-f]{64}$/);
  for (const each of [before, later]) await each.close();

  const written = { ...job, configFile: join(job.directory, "unmoved", "lockstep.yaml") };
  const again = await runJob(written, "train-local", "again");
  assert.equal(mastersOf(again), mastersOf(unmoved));

  const saving = ["--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2"];
  const local = await runJob(plain, "train-local", "local", ["--max_steps", "4"]);
  const cluster = await runJob(plain, "train", "cluster", saving);
  assert.equal(mastersOf(cluster), mastersOf(local));
  const checkpoint = join(job.directory, "cluster", "checkpoint-2");
  const resuming = [...saving, "--workers", "1", "--resume_from_checkpoint", checkpoint];
  const resumed = await runJob(plain, "train", "resumed", resuming);
  assert.equal(mastersOf(resumed), mastersOf(local));
  // What a run began with is a part of what it is.
  const moved = ["--adapter_name_or_path", join(job.directory, "local")];
  const other = await runJob(plain, "train", "other", [...resuming, ...moved]);
  assert.match(other.stderr, /E_RESUME_MISMATCH.*the base model's weights/);
});

test("DPO of an adapter that is trained further has its base for reference, and says so", async () => {
  const pairs = join(job.directory, "pairs.jsonl");
  const row = { prompt: "The state of", chosen: " the Union", rejected: " things" };
  await writeFile(pairs, `${JSON.stringify(row)}\n`.repeat(8));
  const learning = ["--objective", "dpo", "--dataset", pairs, "--eval_dataset", pairs];
  const steps = ["--max_steps", "1", "--eval_on_start", "true"];
  const first = async (of: TinyJob, name: string) => {
    const { code, lines, stderr } = await runJob(of, "train-local", name, [...learning, ...steps]);
    assert.equal(code, 0, stderr);
    const [, reward] = /chosen reward (-?[\d.]+)/.exec(lines.join("\n")) ?? [];
    return { lines, reward: Math.abs(Number(reward)) };
  };
  const told = /^the reference is without the adapter that is trained further/;
  const fresh = await first(job, "fresh");
  assert.equal(fresh.reward, 0);
  assert.ok(!fresh.lines.some((line) => told.test(line)));
  const further = await first(await plainJob(), "further");
  assert.ok(further.reward > 0);
  assert.ok(further.lines.some((line) => told.test(line)));
});

test("settings that are the adapter's may be given, others are refused by name", async () => {
  const plain = await plainJob();
  const given = (...args: string[]) =>
    runJob(plain, "train-local", "given", [...args, "--max_steps", "1"]);
  const same = ["--lora_r", "4", "--lora_rank_pattern", "{up_proj: 2}", "--use_dora"];
  const targets = ["--lora_target_modules", ".*(q|up)_proj", "--lora_dropout", "0.2"];
  const { code, stderr } = await given(...same, ...targets);
  assert.equal(code, 0, stderr);
  for (const [args, message] of [
    [
      ["--lora_r", "8"],
      /adapter_name_or_path and lora_r do not go together: the adapter has 4, not 8/,
    ],
    [["--no-use_dora"], /use_dora do not go together: the adapter has true, not false/],
    [["--init_lora_weights", "gaussian"], /init_lora_weights do not .*: the matrices begin with/],
    [["--lora_target_modules", "q_proj"], /up_proj is in the adapter, and is not chosen by lora_t/],
    [["--lora_modules_to_save", "lm_head"], /lm_head\.weight is chosen by lora_modules_to_save/],
    [["--lora_rank_pattern", "{up_proj: 3}"], /up_proj has rank 2 there, and would have 3/],
    [["--lora_alpha_pattern", "{q_proj: 3}"], /q_proj has scale 1\.5 there, and would have 0\.75/],
    [["--adapter_name_or_path", join(job.directory, "model")], /adapter_name_or_path.*an adapter:/],
  ] as const) {
    const refused = await runJob(plain, "train-local", "refused", args);
    assert.equal(refused.code, 1, args.join(" "));
    assert.match(refused.stderr, message);
  }
  const within = ["--output_dir", join(adapter, "..")];
  const cache = join(job.directory, "cache");
  const output = await lockstepCommand(["train-local", plain.configFile, ...within], cache);
  assert.match(output.stderr, /E_CONFIG_CONFLICT.*adapter_name_or_path and output_dir/);
});

test("a base with other weights is refused wherever an adapter meets it", async (t) => {
  const base = await changedBase();
  t.after(() => rm(base, { recursive: true }));
  const plain = await plainJob();
  const lockstep = (...args: string[]) => lockstepCommand(args, join(job.directory, "cache"));
  const outcomes = [
    await lockstep("merge-adapter", adapter, join(job.directory, "merged"), "--base", base),
    await lockstep("generate", adapter, "--base", base, "--prompt", "the", "--max-new-tokens", "1"),
    await runJob(plain, "train-local", "other-base", ["--model_name_or_path", base]),
  ];
  for (const { code, stderr } of outcomes) {
    assert.equal(code, 1);
    assert.match(stderr, /E_ADAPTER_BASE: .*changed has other weights than the one .* trained on/);
  }
  const merged = await lockstep("merge-adapter", adapter, join(job.directory, "merged"));
  assert.equal(merged.code, 0, merged.stderr);
});
