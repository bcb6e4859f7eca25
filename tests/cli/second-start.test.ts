import assert from "node:assert/strict";
import { appendFile, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { listOwnedCheckpoints, readOutputRecord } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { writeCaseModel } from "#tests/support/case-job";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { namesOfRun } from "#tests/support/run-files";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// What a second start finds in an output directory, in real processes on an engine without TensorFlow.

let job: TinyJob;
const path = (...parts: string[]): string => join(job.directory, ...parts);

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/paced-engine.js"),
    ...{ save_strategy: "steps", save_steps: 2, sample_prompt: null, eval_on_start: false },
    // What a start finds does not depend on them; other numbers of both have a test below.
    ...{ workers: 1, reducer_shards: 1, gradient_accumulation_steps: 4 },
  });
});
after(() => job.remove());

const run = (
  command: "train" | "train-local",
  name: string,
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
  environment?: Readonly<Record<string, string>>,
): Promise<CommandOutcome> =>
  lockstepCommand(
    [
      ...[command, job.configFile, ...(command === "train" ? ["--json-logs"] : [])],
      ...["--output_dir", path(name), ...args],
    ],
    path("cache"),
    onEvent,
    environment,
  );

const train = (name: string, ...args: string[]) => run("train", name, args);
const resume = (name: string, ...args: string[]): Promise<CommandOutcome> =>
  run("train", name, ["--resume_from_checkpoint", "true", ...args]);

async function trained(name: string, ...args: string[]): Promise<CommandOutcome> {
  const outcome = await train(name, ...args);
  assert.equal(outcome.code, 0, outcome.stderr);
  return outcome;
}

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;
const told = (outcome: CommandOutcome): string =>
  (outcome.of("run.started")[0]?.dataLines ?? []).join("\n");
const firstStep = (outcome: CommandOutcome): number | undefined =>
  outcome.of("step.completed")[0]?.step;
const checkpoints = async (name: string): Promise<string[]> =>
  (await readdir(path(name))).filter((each) => each.startsWith("checkpoint-")).sort();

function refused(outcome: CommandOutcome, code: string, pattern: RegExp): void {
  assert.equal(outcome.code, 1, outcome.stderr);
  assert.match(outcome.stderr, new RegExp(`"code":"${code}"`));
  assert.match(outcome.stderr, pattern);
  assert.deepEqual(outcome.of("step.completed"), []);
}

test("the same job twice in one directory: the second keeps its own checkpoints, is killed, and goes on from them", async () => {
  for (const limit of ["1", "2"]) {
    const name = `twice-${limit}`;
    const args = ["--max_steps", "24", "--save_steps", "6", "--save_total_limit", limit];
    const first = await trained(name, ...args);
    const firstId = (await readOutputRecord(path(name)))?.runId;
    const kill: Parameters<typeof run>[3] = (event, child) => {
      if (event.type === "checkpoint.saved" && event.step === 6) child.kill("SIGKILL");
    };
    const killed = await run("train", name, args, kill, { LOCKSTEP_TEST_BATCH_MS: "50" });
    assert.equal(killed.code, null, killed.stderr);
    assert.match(told(killed), /holds .*checkpoint-24, a result of an earlier run of this job/);
    const record = await readOutputRecord(path(name));
    assert.notEqual(record?.runId, firstId);
    assert.equal(record?.finished, null);
    const found = await listOwnedCheckpoints(path(name));
    // Rotation does not count what the first run left.
    assert.ok(found.some((each) => each.record?.runId === firstId));
    const last = found.filter((each) => each.record?.runId === record?.runId).at(-1);
    assert.ok(last !== undefined && last.step >= 6);

    const resumed = await resume(name, ...args);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal(firstStep(resumed), last.step + 1);
    assert.equal(digestOf(resumed), digestOf(first));
    const ids = (await listOwnedCheckpoints(path(name))).map((each) => each.record?.runId);
    assert.ok(ids.filter((id) => id === record?.runId).length <= Number(limit));
    assert.equal((await readOutputRecord(path(name)))?.finished?.step, 24);
  }
});

test("another job's result is refused by what differs, before data is read, or removed by overwrite_output_dir", async () => {
  await trained("used");
  await writeFile(path("used", "notes.txt"), "mine");
  await writeFile(path("used", "logs", "notes.txt"), "mine");
  const before = namesOfRun(path("used"));
  const lr = ["--learning_rate", "2e-3"];
  const other = await train("used", ...lr);
  refused(
    other,
    "E_OUTPUT_DIR_OTHER_RUN",
    /used holds another run's result: the result, checkpoint-2, checkpoint-4, checkpoint-6: learning_rate was 0.001 and is now 0.002/,
  );
  const ways = ["another output_dir", "overwrite_output_dir: true", "resume_from_checkpoint"];
  for (const way of ways) assert.ok(other.stderr.includes(way), way);
  assert.deepEqual(other.of("worker.joined"), []);
  const auto = await train("used", ...lr, "--resume_from_checkpoint", "auto");
  refused(auto, "E_OUTPUT_DIR_OTHER_RUN", /learning_rate was 0.001 and is now 0.002/);
  const local = await run("train-local", "used", [...lr, "--save_strategy", "no"]);
  assert.equal(local.code, 1);
  assert.match(local.stderr, /E_OUTPUT_DIR_OTHER_RUN/);
  assert.deepEqual(namesOfRun(path("used")), before);

  const clean = await trained(
    ...(["used", ...lr, "--overwrite_output_dir"] as const),
    ...["--save_steps", "4", "--resume_from_checkpoint", "auto"],
  );
  assert.equal(firstStep(clean), 1);
  assert.match(
    told(clean),
    /overwrite_output_dir: removed from .*checkpoint-2, checkpoint-4, checkpoint-6, /,
  );
  assert.deepEqual(await checkpoints("used"), ["checkpoint-4", "checkpoint-6"]);
  for (const file of ["notes.txt", "logs/notes.txt"]) {
    assert.equal(await readFile(path("used", file), "utf8"), "mine");
  }
});

test("a model that is no run's is not overwritten, nor is the model that is to be trained", async () => {
  await cp(path("model"), path("foreign"), { recursive: true });
  refused(
    await train("foreign"),
    "E_OUTPUT_DIR_OTHER_RUN",
    /config.json, model.safetensors of a model/,
  );
  const own = ["--model_name_or_path", path("foreign"), "--overwrite_output_dir"];
  refused(
    await train("foreign", ...own),
    "E_CONFIG_CONFLICT",
    /overwrite_output_dir and model_name/,
  );
  await trained("stages");
  const next = ["--model_name_or_path", path("stages", "checkpoint-2"), "--overwrite_output_dir"];
  refused(await train("stages", ...next), "E_CONFIG_CONFLICT", /checkpoint-2 is among what/);
  assert.deepEqual(await checkpoints("stages"), ["checkpoint-2", "checkpoint-4", "checkpoint-6"]);
  // Another program's checkpoint is neither resumed nor rotated.
  await mkdir(path("theirs", "checkpoint-500"), { recursive: true });
  await writeFile(path("theirs", "checkpoint-500", "trainer_state.json"), "{}");
  refused(await resume("theirs"), "E_NO_CHECKPOINT", /checkpoint-500 were not saved by Lockstep/);
  refused(await train("theirs"), "E_OUTPUT_DIR_OTHER_RUN", /checkpoint-500, of which no record/);
  await trained("theirs", "--overwrite_output_dir", "--save_total_limit", "1");
  assert.deepEqual(await checkpoints("theirs"), ["checkpoint-500", "checkpoint-6"]);
});

test("the last checkpoint that is whole is taken, and the damaged ones are named", async () => {
  const whole = await trained("damaged", "--save_steps", "1");
  const flip = async (step: number, file: string): Promise<void> => {
    const victim = path("damaged", `checkpoint-${step}`, file);
    const bytes = await readFile(victim);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    await writeFile(victim, bytes);
  };
  await rm(path("damaged", "lockstep-run.json"));
  await rm(path("damaged", "model.safetensors"));
  await rm(path("damaged", "config.json"));
  await flip(6, "model.safetensors");
  await rm(path("damaged", "checkpoint-5/lockstep/checksums.json"));
  await writeFile(path("damaged", "checkpoint-4/lockstep/checksums.json"), "{}");
  await writeFile(path("damaged", "checkpoint-3/lockstep/run.json"), "{");
  const resumed = await resume("damaged", "--save_steps", "1");
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal(firstStep(resumed), 3);
  assert.equal(digestOf(resumed), digestOf(whole));
  const lines = told(resumed);
  for (const line of [
    /passed over: .*checkpoint-6 is damaged: model.safetensors has a wrong checksum/,
    /passed over: .*checkpoint-5 is damaged: lockstep\/checksums.json is missing/,
    /passed over: .*checkpoint-4 is damaged: lockstep\/state.json has no checksum/,
    /passed over: .*checkpoint-3 is damaged: lockstep\/run.json has a wrong checksum/,
    /goes on from .*checkpoint-2, after 2 steps/,
  ]) {
    assert.match(lines, line);
  }
  await rm(path("damaged", "lockstep-run.json"));
  for (const step of [1, 2, 3, 4, 5, 6]) await flip(step, "trainer_state.json");
  for (const wanted of ["true", "auto"]) {
    const none = await train("damaged", "--resume_from_checkpoint", wanted);
    refused(
      none,
      "E_NO_CHECKPOINT",
      /none of its checkpoints can be used.*checkpoint-6 is damaged/,
    );
  }
  const named = ["--resume_from_checkpoint", path("damaged", "checkpoint-4")];
  refused(
    await train("elsewhere", ...named),
    "E_CHECKPOINT_DAMAGED",
    /checkpoint-4.*trainer_state/,
  );
});

test("the best model, asked for only afterwards, is found by the history", async () => {
  const evaluating = ["--eval_strategy", "steps", "--eval_steps", "2"];
  await trained("history", ...evaluating);
  const best = [...evaluating, "--load_best_model_at_end", "true"];
  const again = await resume("history", ...best);
  assert.equal(again.code, 0, again.stderr);
  const details = again.of("phase.changed").map(({ detail }) => detail ?? "");
  const losses = JSON.parse(await readFile(path("history", "trainer_state.json"), "utf8")) as {
    log_history: { step: number; eval_loss?: number }[];
  };
  let expected = { step: 0, loss: Infinity };
  for (const { step, eval_loss: loss } of losses.log_history) {
    if (step > 0 && loss !== undefined && loss < expected.loss) expected = { step, loss };
  }
  assert.ok(details.includes(`writing the best model, that of step ${expected.step}`));
  assert.deepEqual(
    await readFile(path("history", "model.safetensors")),
    await readFile(path("history", `checkpoint-${expected.step}`, "model.safetensors")),
  );
});

test("a damaged record beside a run's own checkpoints does not hold it up", async () => {
  const whole = await trained("longer", "--max_steps", "8");
  await trained("unreadable");
  await writeFile(path("unreadable", "lockstep-run.json"), "");
  const other = await resume("unreadable", "--max_steps", "8", "--seed", "7");
  refused(other, "E_RESUME_MISMATCH", /seed was 42 and is now 7/);
  refused(await train("unreadable", "--seed", "7"), "E_OUTPUT_DIR_OTHER_RUN", /does not tell/);
  const resumed = await resume("unreadable", "--max_steps", "8");
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.match(told(resumed), /written anew: .*lockstep-run.json cannot be read as JSON/);
  assert.equal(firstStep(resumed), 7);
  assert.equal(digestOf(resumed), digestOf(whole));
  assert.equal((await readOutputRecord(path("unreadable")))?.finished?.step, 8);
});

test("a checkpoint behind a link is taken, and another program's is not replaced", async () => {
  await trained("linked");
  await cp(path("linked", "checkpoint-6"), path("disk", "six"), { recursive: true });
  await rm(path("linked", "checkpoint-6"), { recursive: true });
  await symlink(path("disk", "six"), path("linked", "checkpoint-6"));
  const resumed = await resume("linked", "--max_steps", "8", "--save_total_limit", "1");
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal(firstStep(resumed), 7);
  assert.deepEqual(await checkpoints("linked"), ["checkpoint-8"]);
  // Rotation takes the link away, not what it names.
  assert.ok((await readdir(path("disk", "six"))).includes("model.safetensors"));

  await mkdir(path("strange", "checkpoint-4"), { recursive: true });
  await writeFile(path("strange", "checkpoint-4", "pytorch_model.bin"), "theirs");
  const over = await train("strange", "--overwrite_output_dir");
  refused(over, "E_CONFIG_CONFLICT", /did not save checkpoint-4 in .*strange.*move it away/);
  assert.deepEqual(await readdir(path("strange", "checkpoint-4")), ["pytorch_model.bin"]);
});

test("what decides the result is refused by name when it changed; what does not may change", async () => {
  const by = (workers: string) => ["--workers", workers, "--gradient_accumulation_steps", "2"];
  const whole = await trained("whole", "--max_steps", "8", ...by("2"));
  await trained("decisive", ...by("2"), "--reducer_shards", "2");
  await cp(path("decisive"), path("copied"), { recursive: true });
  const longer = ["--max_steps", "8"];
  const changed = (...args: string[]): Promise<CommandOutcome> =>
    resume("decisive", ...longer, ...args);
  for (const [key, value, pattern] of [
    ["seed", "7", /seed was 42 and is now 7/],
    ["weight_decay", "0.1", /weight_decay was 0 and is now 0.1/],
    ["max_grad_norm", "0", /max_grad_norm was 1 and is now 0/],
    ["lr_scheduler_type", "linear", /lr_scheduler_type was .*constant.* and is now .*linear/],
    ["per_device_train_batch_size", "4", /per_device_train_batch_size was 2 and is now 4/],
    ["threads_per_worker", "2", /threads_per_worker was 1 and is now 2/],
    ["use_peft", "true", /use_peft was false and is now true/],
    ["max_train_samples", "9", /training data had .*max_train_samples was null and is now 9/],
    ["max_eval_samples", "2", /the validation data had .*max_eval_samples was 4 and is now 2/],
  ] as const) {
    refused(await changed(`--${key}`, value), "E_RESUME_MISMATCH", pattern);
  }
  const half = await changed("--workers", "2", "--gradient_accumulation_steps", "1");
  refused(half, "E_RESUME_MISMATCH", /global_batch_size was 8 and is now 4/);
  const text = await readFile(path("4.txt"), "utf8");
  await appendFile(path("4.txt"), " law and peace and the people".repeat(20));
  refused(await changed(), "E_RESUME_MISMATCH", /the validation data had .*the files hold/);
  await writeFile(path("4.txt"), text);

  // Free: where files are, the number of workers, what is told and saved.
  for (const file of ["1.txt", "2.txt", "3.txt"]) await cp(path(file), path("moved", file));
  await cp(path("model"), path("moved", "model"), { recursive: true });
  const again = await resume(
    ...(["copied", ...longer, ...by("1"), "--logging_steps", "1"] as const),
    ...["--dataset", JSON.stringify(["1.txt", "2.txt", "3.txt"].map((f) => path("moved", f)))],
    ...["--model_name_or_path", path("moved", "model"), "--save_steps", "3"],
    ...["--reducer_shards", "1", "--run_name", "other", "--gradient_checkpointing", "true"],
  );
  assert.equal(again.code, 0, again.stderr);
  assert.match(told(again), /global_batch_size stays 8.*2 workers then, 1 now/);
  assert.match(told(again), /gradient_groups stays 2/);
  assert.equal(firstStep(again), 7);
  assert.equal(digestOf(again), digestOf(whole));
  const third = await resume("copied", "--max_steps", "9", ...by("4"));
  assert.equal(third.code, 0, third.stderr);
  assert.match(told(third), /global_batch_size stays 8.*2 workers then, 4 now/);
  // A copy at another place, by its name, into a new directory.
  const named = await train(
    ...(["new", ...longer, "--resume_from_checkpoint"] as const),
    path("copied", "checkpoint-4"),
  );
  assert.equal(named.code, 0, named.stderr);
  assert.equal(firstStep(named), 5);
  assert.equal(digestOf(named), digestOf(whole));
  // Its log begins where that of the copied run does.
  const log = await readFile(path("new", "trainer_log.jsonl"), "utf8");
  const logged = log.match(/(?<="current_steps": )\d+/g);
  assert.deepEqual([...new Set(logged)], ["2", "4", "6", "8"]);
});

test("other weights under the same name are refused, of a model and below adapters", async () => {
  for (const [name, args] of [
    ["full", []],
    ["adapters", ["--use_peft", "true"]],
  ] as const) {
    await writeCaseModel(path(`base-${name}`), { seed: 1 });
    const settings = ["--model_name_or_path", path(`base-${name}`), "--max_length", "64", ...args];
    await trained(name, ...settings);
    await writeCaseModel(path(`base-${name}`), { seed: 2 });
    const weights = /the base model's weights had SHA-256 [0-9a-f]{12}\.\.\. and now [0-9a-f]{12}/;
    const longer = await resume(name, ...settings, "--max_steps", "8");
    refused(longer, "E_RESUME_MISMATCH", weights);
    refused(await train(name, ...settings), "E_OUTPUT_DIR_OTHER_RUN", weights);
    await writeCaseModel(path(`base-${name}`), { seed: 1 });
    const config = path(`base-${name}`, "config.json");
    const text = await readFile(config, "utf8");
    await writeFile(config, text.replace('"rope_theta":10000', '"rope_theta":20000'));
    const other = await resume(name, ...settings, "--max_steps", "8");
    refused(other, "E_RESUME_MISMATCH", /config.json rope_theta was 10000 and is now 20000/);
    await writeFile(config, text);
    const same = await resume(name, ...settings, "--max_steps", "8");
    assert.equal(same.code, 0, same.stderr);
  }
});

test("another kind of processor is refused, or told where bits may differ", async () => {
  await trained("processor");
  const limited = { ONEDNN_MAX_CPU_ISA: "SSE41" };
  const go = ["--resume_from_checkpoint", "true", "--max_steps", "8"];
  const other = await run("train", "processor", go, undefined, limited);
  refused(other, "E_RESUME_MISMATCH", /the device was .* and is now .*ONEDNN_MAX_CPU_ISA=SSE41/);
  const free = await run(
    "train",
    "processor",
    [...go, "--deterministic", "false"],
    undefined,
    limited,
  );
  assert.equal(free.code, 0, free.stderr);
  assert.equal(firstStep(free), 7);
  const details = free.of("phase.changed").map(({ detail }) => detail ?? "");
  assert.ok(details.some((detail) => /the device was .*other last bits/.test(detail)));
});

test("a finished run is complete, whatever it saved, and changes no file", async () => {
  for (const [name, args] of [
    ["saved", []],
    ["unsaved", ["--save_strategy", "no"]],
    ["best", ["--load_best_model_at_end", "--eval_strategy", "steps", "--eval_steps", "2"]],
  ] as const) {
    const limit = name === "best" ? ["--save_total_limit", "1", "--learning_rate", "5"] : [];
    await trained(name, ...args, ...limit);
    const state = async (): Promise<string[]> => {
      const names = namesOfRun(path(name));
      const contents = await Promise.all(
        names.map((file) => readFile(path(name, file), "base64").catch(() => "directory")),
      );
      return names.map((file, i) => `${file} ${contents[i]}`);
    };
    const before = await state();
    for (const wanted of ["true", "auto"]) {
      const again = await train(name, ...args, ...limit, "--resume_from_checkpoint", wanted);
      assert.equal(again.code, 0, again.stderr);
      assert.match(again.lines.join("\n"), /Nothing is left to do/);
    }
    assert.deepEqual(await state(), before);
  }
  // Killed after its last checkpoint and before its result, it makes the result.
  await rm(path("saved", "lockstep-run.json"));
  await rm(path("saved", "model.safetensors"));
  await rm(path("saved", "config.json"));
  const late = await resume("saved");
  assert.equal(late.code, 0, late.stderr);
  assert.deepEqual(late.of("step.completed"), []);
  assert.ok((await readdir(path("saved"))).includes("model.safetensors"));
});
