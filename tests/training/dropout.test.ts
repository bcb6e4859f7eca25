import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { mastersOf, type RunArguments, runJob, WorkerKiller } from "#tests/support/job-runs";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A model whose config.json says 0.1, in the whole command: the same masks in every process.

let job: TinyJob;
let plainConfig: Record<string, unknown>;
before(async () => {
  job = await createTinyJob({
    ...{ max_steps: 5, global_batch_size: 8, gradient_groups: 4, eval_on_start: false },
    ...{ sample_prompt: null, eval_on_end: false },
  });
  plainConfig = JSON.parse(await readFile(modelConfigFile(), "utf8")) as typeof plainConfig;
  await writeFile(modelConfigFile(), JSON.stringify({ ...plainConfig, attention_dropout: 0.1 }));
});
after(() => job.remove());

const modelConfigFile = (): string => join(job.directory, "model", "config.json");

const run = (...args: RunArguments) => runJob(job, ...args);

/** What one process prints and ends with. */
async function ofOneProcess(name: string, args: readonly string[] = []) {
  const local = await run("train-local", name, args);
  return { text: local.lines.join("\n"), digest: mastersOf(local) };
}

let expected = "";

test("a model whose config.json says 0.1 trains with it, and the run says so", async () => {
  const { text, digest } = await ofOneProcess("local");
  const told = "dropout: attention 0.1 (the model's config.json)";
  assert.ok(text.includes(told), text);
  expected = digest;
  const cluster = await run("train", "cluster", ["--workers", "1"]);
  assert.equal(cluster.code, 0, cluster.stderr);
  const [started] = cluster.of("run.started");
  assert.deepEqual(started?.dropout, { attention: 0.1 });
  assert.ok(started?.dataLines?.includes(told));
  assert.equal(mastersOf(cluster), expected);
});

test("two and four workers, and recomputed activations, end with the same weights", async () => {
  for (const args of [
    ["--workers", "2", "--gradient_checkpointing", "true"],
    ["--workers", "4", "--reducer_shards", "3"],
  ]) {
    const cluster = await run("train", `of-${args[1]}`, args);
    assert.equal(mastersOf(cluster), expected, args.join(" "));
  }
});

test("kill -9 of a worker in step 3 changes nothing", async () => {
  const killer = new WorkerKiller(2);
  const broken = await run("train", "killed", ["--workers", "2"], killer.onEvent);
  assert.equal(broken.code, 0, broken.stderr);
  killer.assertLost(broken);
  assert.equal(mastersOf(broken), expected);
});

test("a resumed run ends like one that was not stopped, and not with other rates", async () => {
  const saving = ["--save-strategy", "steps", "--save-steps", "3", "--workers", "1"];
  const whole = await run("train", "whole", saving);
  assert.equal(mastersOf(whole), expected);
  const from = ["--resume-from-checkpoint", join(job.directory, "whole", "checkpoint-3")];
  const resumed = await run("train", "resumed", [...saving, ...from]);
  assert.equal(mastersOf(resumed), expected);
  const same = await run("train", "same", [...saving, ...from, "--dropout", "{attention: 0.1}"]);
  assert.equal(mastersOf(same), expected);
  const other = await run("train", "other", [...saving, ...from, "--dropout", "0"]);
  assert.notEqual(other.code, 0);
  assert.match(
    other.stderr,
    /E_RESUME_MISMATCH.*dropout was \{\\"attention\\":0\.1\} and is now \{\}/s,
  );
});

test("dropout: 0 trains as a model whose config.json says 0", async () => {
  const { digest: off } = await ofOneProcess("off", ["--dropout", "0"]);
  assert.notEqual(off, expected);
  await writeFile(modelConfigFile(), JSON.stringify(plainConfig));
  assert.equal((await ofOneProcess("plain")).digest, off);
});

test("adapters with lora_dropout end with the same weights in one process and two", async () => {
  const lora = ["--use_peft", "true", "--lora_dropout", "0.25", "--learning-rate", "1e-2"];
  const { digest: alone } = await ofOneProcess("lora", lora);
  const cluster = await run("train", "lora-2", [...lora, "--workers", "2"]);
  assert.equal(mastersOf(cluster), alone);
  assert.deepEqual(cluster.of("run.started")[0]?.dropout, { adapters: 0.25 });
  const saved = JSON.parse(
    await readFile(join(job.directory, "lora-2", "adapter_config.json"), "utf8"),
  ) as Record<string, unknown>;
  assert.equal(saved["lora_dropout"], 0.25);
  const without = await ofOneProcess("lora-0", [...lora.slice(0, 2), ...lora.slice(4)]);
  assert.notEqual(without.digest, alone);
});
