import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { readTrainerState } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { runLines as localLines } from "#tests/support/run-lines";
import { mountSmallDisk, type SmallDisk } from "#tests/support/small-disk";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// What the file system refuses a run, in real processes: nothing that was trained is lost, and all of it is told.

const diskBytes = 16 << 20;
/** Room for logs and the configuration, and for no checkpoint. */
const noRoomBytes = 128 << 10;
const limit = { timeout: 300_000 };
let job: TinyJob;
let undisturbed: string | undefined;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  });
  undisturbed = digestOf(await run(["--output_dir", join(job.directory, "undisturbed")]));
});

after(() => job.remove());

const run = (
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
): Promise<CommandOutcome> =>
  lockstepCommand(
    ["train", job.configFile, "--json-logs", ...args],
    join(job.directory, "cache"),
    onEvent,
  );

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

/** A disk that holds the output of one run; undefined where none can be mounted. */
function diskFor(t: TestContext, name: string): SmallDisk | undefined {
  const disk = mountSmallDisk(join(job.directory, name), diskBytes);
  if (typeof disk === "string") {
    t.skip(disk);
    return undefined;
  }
  t.after(() => disk.remove());
  return disk;
}

const savedSteps = (outcome: CommandOutcome): number[] =>
  outcome.of("checkpoint.saved").map(({ step }) => step);

/** Nothing half is left. */
async function holdsNoTransients(directory: string): Promise<void> {
  const names = await readdir(directory);
  assert.deepEqual(
    names.filter((name) => /\.(tmp|previous|removed)-/.test(name)),
    [],
  );
}

test("a full disk at a save: training goes on, and the next one is saved", limit, async (t) => {
  const disk = diskFor(t, "full");
  if (disk === undefined) return;
  disk.fill(noRoomBytes);
  const outcome = await run(
    ["--output_dir", disk.directory, "--save_strategy", "steps", "--save_steps", "3"],
    (event) => {
      if (event.type === "checkpoint.failed" && event.step === 6 && existsSync(filler(disk))) {
        disk.free();
      }
    },
  );
  assert.equal(outcome.code, 0, outcome.stderr);
  assert.equal(digestOf(outcome), undisturbed);
  const failures = outcome.of("checkpoint.failed");
  assert.ok(failures.every(({ code }) => code === "E_DISK_FULL"));
  const third = failures.filter(({ step }) => step === 3);
  assert.ok(third.length >= 2, "it had a last attempt");
  assert.deepEqual([third[0]?.retryInMs, third.at(-1)?.retryInMs], [1_000, null]);
  const told = outcome.of("note").map(({ text }) => text);
  assert.ok(
    told.some((text) => /checkpoint-3 was not saved: No space.*training goes on/.test(text)),
  );
  assert.ok(told.some((text) => /checkpoint-3.*a later one takes its place/.test(text)));
  // The last checkpoint, then the result.
  assert.deepEqual(savedSteps(outcome), [6, 6]);
  assert.equal((await readTrainerState(join(disk.directory, "checkpoint-6"))).global_step, 6);
  assert.ok(!existsSync(join(disk.directory, "checkpoint-3")));
  await holdsNoTransients(disk.directory);
});

const filler = (disk: SmallDisk): string => join(disk.directory, "filler");

test("a disk that becomes read-only and comes back, at a stop", limit, async (t) => {
  const disk = diskFor(t, "read-only");
  if (disk === undefined) return;
  let isStopped = false;
  let isBack = false;
  const outcome = await run(
    ["--output_dir", disk.directory, "--max_steps", "100000"],
    (event, child) => {
      if (event.type === "step.completed" && event.step >= 3 && !isStopped) {
        isStopped = true;
        disk.setWritable(false);
        child.kill("SIGTERM");
      }
      if (event.type !== "checkpoint.failed" || isBack) return;
      isBack = true;
      disk.setWritable(true);
    },
  );
  assert.equal(outcome.code, 143, outcome.stderr);
  // The next attempt may come before the disk is back.
  const failures = outcome.of("checkpoint.failed").map(({ code }) => code);
  assert.deepEqual(new Set(failures), new Set(["E_CHECKPOINT_WRITE"]));
  const { step, directory } = outcome.of("run.completed")[0] ?? {};
  assert.equal(directory, join(disk.directory, `checkpoint-${step}`));
  assert.equal((await readTrainerState(directory ?? "")).global_step, step);
});

test("a disk that stays full ends the run with what is kept", limit, async (t) => {
  const disk = diskFor(t, "stays-full");
  if (disk === undefined) return;
  let isStopped = false;
  const outcome = await run(
    [
      ...["--output_dir", disk.directory, "--save_strategy", "steps", "--save_steps", "3"],
      ...["--max_steps", "100000", "--save_retry_ms", "1500"],
    ],
    (event, child) => {
      if (event.type === "checkpoint.saved") disk.fillUp();
      if (event.type !== "checkpoint.failed" || isStopped) return;
      isStopped = true;
      // What the attempt took is free again.
      disk.fillUp();
      child.kill("SIGTERM");
    },
  );
  assert.equal(outcome.code, 1);
  const [, kept = ""] =
    /E_SAVE_FAILED.*Kept is ([^ "]*checkpoint-\d+)\./.exec(outcome.stderr) ?? [];
  assert.ok(kept.startsWith(disk.directory), outcome.stderr);
  const state = await readTrainerState(kept);
  assert.equal(state.global_step, savedSteps(outcome).at(-1));
  await holdsNoTransients(disk.directory);
});

test("train-local waits with its result for room", limit, async (t) => {
  const disk = diskFor(t, "local");
  if (disk === undefined) return;
  disk.fill(noRoomBytes);
  const before = await readdir(disk.directory);
  const outcome = await runLines(["--output_dir", disk.directory], (line) => {
    if (line.startsWith("warning: the result was not saved: No space")) disk.free();
  });
  assert.equal(outcome.code, 0, outcome.text);
  assert.deepEqual(before, ["filler"]);
  const [, digest] = /^masters sha256 ([0-9a-f]{64})/m.exec(outcome.text) ?? [];
  assert.equal(digest, undisturbed);
  assert.ok(existsSync(join(disk.directory, "model.safetensors")));
});

const runLines = (args: readonly string[], onLine: (line: string) => void) =>
  localLines(
    [process.execPath, join(packageRoot, "bin/lockstep"), "train-local", job.configFile, ...args],
    { cwd: job.directory, env: { LOCKSTEP_CACHE: join(job.directory, "cache") } },
    onLine,
  );
