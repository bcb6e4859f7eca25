import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lockstepCommand } from "#tests/support/lockstep-command";
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

const run = (
  command: "train" | "train-local",
  name: string,
  args: readonly string[] = [],
  onEvent?: Parameters<typeof lockstepCommand>[2],
) =>
  lockstepCommand(
    [
      ...[command, job.configFile, ...(command === "train" ? ["--json-logs"] : [])],
      ...["--output-dir", join(job.directory, name), ...args],
    ],
    join(job.directory, "cache"),
    onEvent,
  );

/** What one process prints and ends with. */
async function ofOneProcess(name: string, args: readonly string[] = []) {
  const local = await run("train-local", name, args);
  assert.equal(local.code, 0, local.stderr);
  const text = local.lines.join("\n");
  const digest = /masters sha256 ([0-9a-f]{64})/.exec(text)?.[1];
  assert.ok(digest !== undefined, text);
  return { text, digest };
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
  assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected);
});

test("two and four workers, and recomputed activations, end with the same weights", async () => {
  for (const args of [
    ["--workers", "2", "--gradient_checkpointing", "true"],
    ["--workers", "4", "--reducer_shards", "3"],
  ]) {
    const cluster = await run("train", `of-${args[1]}`, args);
    assert.equal(cluster.code, 0, cluster.stderr);
    assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected, args.join(" "));
  }
});

test("kill -9 of a worker in step 3 changes nothing", async () => {
  const pids = new Map<string, number>();
  let killed = "";
  const broken = await run("train", "killed", ["--workers", "2"], (event) => {
    if (event.type === "worker.joined") pids.set(event.workerId, event.pid);
    if (event.type === "group.leased" && event.step === 2 && killed === "") {
      killed = event.workerId;
      process.kill(pids.get(killed) as number, "SIGKILL");
    }
  });
  assert.equal(broken.code, 0, broken.stderr);
  assert.ok(broken.of("worker.lost").some(({ workerId }) => workerId === killed));
  assert.equal(broken.of("run.completed")[0]?.mastersSha256, expected);
});

test("a resumed run ends like one that was not stopped, and not with other rates", async () => {
  const saving = ["--save-strategy", "steps", "--save-steps", "3", "--workers", "1"];
  const whole = await run("train", "whole", saving);
  assert.equal(whole.of("run.completed")[0]?.mastersSha256, expected, whole.stderr);
  const from = ["--resume-from-checkpoint", join(job.directory, "whole", "checkpoint-3")];
  const resumed = await run("train", "resumed", [...saving, ...from]);
  assert.equal(resumed.of("run.completed")[0]?.mastersSha256, expected, resumed.stderr);
  const same = await run("train", "same", [...saving, ...from, "--dropout", "{attention: 0.1}"]);
  assert.equal(same.of("run.completed")[0]?.mastersSha256, expected, same.stderr);
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
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(cluster.of("run.completed")[0]?.mastersSha256, alone);
  assert.deepEqual(cluster.of("run.started")[0]?.dropout, { adapters: 0.25 });
  const saved = JSON.parse(
    await readFile(join(job.directory, "lora-2", "adapter_config.json"), "utf8"),
  ) as Record<string, unknown>;
  assert.equal(saved["lora_dropout"], 0.25);
  const without = await ofOneProcess("lora-0", [...lora.slice(0, 2), ...lora.slice(4)]);
  assert.notEqual(without.digest, alone);
});
