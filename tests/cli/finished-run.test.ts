import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { readOutputRecord } from "#lib/checkpoint/run-record";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { freePorts } from "#tests/support/ports";
import { namesOfRun } from "#tests/support/run-files";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A run that is over, started again as deploy/kustomize starts it.

const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
/** A time that every file system keeps as it is. */
const writtenAt = new Date("2024-01-01T00:00:00Z");
let job: TinyJob;

before(async () => {
  job = await createTinyJob({
    ...{ engine_module: engine, save_strategy: "steps", save_steps: 3, reducer_shards: 1 },
  });
  await utimes(join(job.directory, "1.txt"), writtenAt, writtenAt);
});

after(() => job.remove());

const lockstep = (...args: string[]): Promise<CommandOutcome> =>
  lockstepCommand(args, join(job.directory, "cache"));

const train = (output: string, ...args: string[]): Promise<CommandOutcome> =>
  lockstep("train", job.configFile, "--json-logs", "--output_dir", output, ...args);

/** Every file and directory with its bytes and its time. */
async function stampsOf(directory: string): Promise<Readonly<Record<string, string>>> {
  const names = namesOfRun(directory);
  const stamps: Record<string, string> = {};
  for (const name of ["", ...names]) {
    const { size, mtimeMs } = await stat(join(directory, name));
    stamps[name] = `${size} ${mtimeMs}`;
  }
  return stamps;
}

const note = ({ lines }: CommandOutcome): string =>
  lines.filter((line) => line.includes("Nothing is left to do")).join("\n");

const lora = ["--use_peft", "true", "--lora_r", "4", "--bf16", "false"];

for (const [name, flags, resultFile] of [
  ["full", [], "config.json"],
  ["LoRA", lora, "adapter_config.json"],
] as const) {
  test(`${name}: coordinator and worker end with 0, train nothing and change no file`, async () => {
    const output = join(job.directory, name);
    const first = await train(output, ...flags);
    assert.equal(first.code, 0, first.stderr);
    assert.ok((await stat(join(output, resultFile))).size > 0);
    assert.equal((await readdir(output)).includes("config.json"), name === "full");
    const stamps = await stampsOf(output);
    const [completed] = first.of("run.completed");
    const record = await readOutputRecord(output);
    assert.equal(record?.finished?.mastersSha256, completed?.mastersSha256);

    const address = `127.0.0.1:${await freePorts(1)}`;
    const hosted = ["coordinator", job.configFile, "--json-logs", "--output_dir", output];
    for (const isWorkerFirst of [true, false]) {
      const worker = (): Promise<CommandOutcome> =>
        lockstep(
          ...["worker", "--coordinator", address, "--name=w", "--metrics-port=0", "--use-cpu"],
          ...["--reconnect-timeout-ms=30000", "--engine-module", engine],
        );
      const coordinator = (): Promise<CommandOutcome> =>
        lockstep(...[...hosted, "--resume_from_checkpoint=auto", "--listen", address], ...flags);
      const all = isWorkerFirst
        ? [worker(), worker(), coordinator()]
        : [coordinator(), worker(), worker()];
      const outcomes = await Promise.all(all);
      for (const { code, stderr, lines } of outcomes) {
        assert.equal(code, 0, `${stderr}\n${lines.join("\n")}`);
      }
      const ofHost = isWorkerFirst ? outcomes[2] : outcomes[0];
      const ofWorker = outcomes[1];
      assert.match(ofWorker?.lines.join("\n") ?? "", /finished after 0 gradient groups/);
      assert.ok(ofHost !== undefined);
      assert.match(note(ofHost), /after 6 steps/);
      assert.deepEqual(ofHost.of("step.completed"), []);
      assert.deepEqual(await stampsOf(output), stamps);
    }

    const again = await train(output, "--resume_from_checkpoint", "true", ...flags);
    assert.equal(again.code, 0, again.stderr);
    assert.match(note(again), /holds the result of this run/);
    assert.deepEqual(await stampsOf(output), stamps);
  });
}

test("without workers to tell, the coordinator does not wait", async () => {
  const output = join(job.directory, "alone");
  assert.equal((await train(output)).code, 0);
  let toldAtMs: number | undefined;
  const args = ["--json-logs", "--output_dir", output, "--resume_from_checkpoint", "auto"];
  const { code } = await lockstepCommand(
    ["coordinator", job.configFile, ...args],
    join(job.directory, "cache"),
    (event) => {
      if (event.type === "note" && event.text.includes("Nothing is left to do")) {
        toldAtMs = performance.now();
      }
    },
  );
  assert.equal(code, 0);
  // Nobody can know a port that the system chooses.
  assert.ok(toldAtMs !== undefined && performance.now() - toldAtMs < 9_000);
});

test("more steps go on; other settings, data or results are not taken for finished", async () => {
  const output = join(job.directory, "more");
  assert.equal((await train(output)).code, 0);
  const resume = ["--resume_from_checkpoint", "true"];

  const longer = await train(output, ...resume, "--max_steps", "8");
  assert.equal(longer.code, 0, longer.stderr);
  assert.deepEqual(
    longer.of("step.completed").map(({ step }) => step),
    [7, 8],
  );
  // Each in a copy: whoever is not taken for finished trains, and writes another result.
  const told = async (
    change: (copy: string) => Promise<void>,
    args: readonly string[] = [],
  ): Promise<string> => {
    const copy = await mkdtemp(join(job.directory, "copy-"));
    await cp(output, copy, { recursive: true });
    await change(copy);
    return note(await train(copy, ...resume, "--max_steps", "8", ...args));
  };
  const unchanged = (): Promise<void> => Promise.resolve();
  assert.match(await told(unchanged), /after 8 steps/);
  assert.match(
    await told(unchanged, ["--save_steps", "4", "--user_signal", "stop"]),
    /after 8 steps/,
  );
  assert.equal(await told(unchanged, ["--learning_rate", "5e-4"]), "");
  assert.equal(await told((copy) => writeFile(join(copy, "model.safetensors"), "cut off")), "");
  assert.equal(await told((copy) => rm(join(copy, "trainer_state.json"))), "");
  assert.equal(await told((copy) => writeFile(join(copy, "lockstep-run.json"), "{")), "");
  const data = join(job.directory, "1.txt");
  const text = await readFile(data);
  assert.equal(await told(() => writeFile(data, "another text of the same run ".repeat(90))), "");
  await writeFile(data, text);
  await utimes(data, writtenAt, writtenAt);
  assert.match(await told(unchanged), /after 8 steps/);
});

test("a run that was stopped is not finished", async () => {
  const output = join(job.directory, "stopped");
  const args = ["train", job.configFile, "--json-logs", "--output_dir", output];
  const stopped = await lockstepCommand(
    [...args, "--max_steps", "100000"],
    join(job.directory, "cache"),
    (event, child) => {
      if (event.type === "step.completed" && event.step === 3) child.kill("SIGTERM");
    },
  );
  assert.equal(stopped.code, 143, stopped.stderr);
  const record = JSON.parse(await readFile(join(output, "lockstep-run.json"), "utf8")) as unknown;
  assert.equal((record as { finished: unknown }).finished, null);
});

test("a finished run that is asked for another result makes it without training", async () => {
  const output = join(job.directory, "results");
  const first = await train(output);
  assert.equal(first.code, 0, first.stderr);
  const digest = (outcome: CommandOutcome): string | undefined =>
    outcome.of("run.completed")[0]?.mastersSha256;
  for (const [name, args, why] of [
    ["type", ["--save_dtype", "bfloat16"], /save_dtype was "float32" and is now "bfloat16"/],
    ["shards", ["--max_shard_size", "50KB"], /max_shard_size was 5000000000 and is now 50000/],
    [
      "best",
      ["--load_best_model_at_end", "true", "--eval_strategy", "steps", "--eval_steps", "3"],
      /load_best_model_at_end was false and is now true/,
    ],
  ] as const) {
    const copy = join(job.directory, `results-${name}`);
    await cp(output, copy, { recursive: true });
    const again = await train(copy, "--resume_from_checkpoint", "auto", ...args);
    assert.equal(again.code, 0, again.stderr);
    assert.equal(note(again), "");
    assert.match((again.of("run.started")[0]?.dataLines ?? []).join("\n"), why);
    assert.deepEqual(again.of("step.completed"), []);
    assert.equal(digest(again), digest(first));
    const results = join(copy, "all_results.json");
    assert.match(await readFile(results, "utf8"), /"train_loss": \d/);
    const files = (await readdir(copy)).filter((file) => file.endsWith(".safetensors"));
    assert.equal(files.length > 1, name === "shards");
    if (name === "type") {
      const [was, is] = await Promise.all(
        [output, copy].map((each) => stat(join(each, "model.safetensors"))),
      );
      assert.ok((is?.size ?? 0) < 0.6 * (was?.size ?? 0));
    }
    const third = await train(copy, "--resume_from_checkpoint", "auto", ...args);
    assert.match(note(third), /after 6 steps/);
  }
});
