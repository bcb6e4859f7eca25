import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// What happens beside a run, in real processes, and must not end it.

const limit = { timeout: 240_000 };
const steps = ["--max_steps", "40"];
/** For a run that is to be there still when a worker is killed. */
const paced = { LOCKSTEP_TEST_BATCH_MS: "50" };
let job: TinyJob;
let undisturbed: string | undefined;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/paced-engine.js"),
  });
  undisturbed = digestOf(await train("undisturbed", steps));
  assert.match(undisturbed ?? "", /^[0-9a-f]{64}$/);
});

after(() => job.remove());

const outputOf = (name: string): string => join(job.directory, name);

const train = (
  name: string,
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
  environment?: Readonly<Record<string, string>>,
): Promise<CommandOutcome> =>
  lockstepCommand(
    ["train", job.configFile, "--json-logs", "--output_dir", outputOf(name), ...args],
    join(job.directory, "cache"),
    onEvent,
    environment,
  );

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

const notesOf = (outcome: CommandOutcome): string =>
  outcome
    .of("note")
    .map(({ text }) => text)
    .join("\n");

/** Kills the worker that has just finished a group; `true`: it did. */
class Killer {
  readonly #pids = new Map<string, number>();
  #last = "";

  see(event: LockstepEvent): void {
    if (event.type === "worker.joined") this.#pids.set(event.workerId, event.pid);
    if (event.type === "group.completed") this.#last = event.workerId;
  }

  kill(): boolean {
    const pid = this.#pids.get(this.#last);
    this.#pids.delete(this.#last);
    if (pid === undefined) return false;
    process.kill(pid, "SIGKILL");
    return true;
  }
}

test(
  "logs that are removed while a worker dies are told of, and the run goes on",
  limit,
  async () => {
    const killer = new Killer();
    let isKilled = false;
    const onEvent = (event: LockstepEvent): void => {
      killer.see(event);
      if (event.type !== "step.completed" || isKilled) return;
      rmSync(join(outputOf("logs-removed"), "logs"), { recursive: true });
      isKilled = killer.kill();
    };
    const outcome = await train("logs-removed", steps, onEvent, paced);
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(outcome.stderr, "");
    assert.match(notesOf(outcome), /ended \(killed by SIGKILL\).* Its log cannot be read: ENOENT/);
    assert.equal(digestOf(outcome), undisturbed);
  },
);

test("at a limit of open files a worker is started once there are some", limit, async () => {
  const killer = new Killer();
  let isKilled = false;
  let numJoined = 0;
  const setLimit = (pid: number, numFiles: number): void =>
    void execFileSync("prlimit", ["--pid", String(pid), `--nofile=${numFiles}:`]);
  const args = ["--max_steps", "100000"];
  const outcome = await train("no-files", args, (event, child) => {
    const { pid = 0 } = child;
    killer.see(event);
    if (event.type === "step.completed" && !isKilled) {
      // No descriptor but the standard ones may be given out any more.
      setLimit(pid, 3);
      isKilled = killer.kill();
    }
    if (event.type === "note" && /cannot be started/.test(event.text)) setLimit(pid, 1024);
    if (event.type === "worker.joined" && ++numJoined === 3) child.kill("SIGTERM");
  });
  assert.equal(outcome.code, 143, outcome.stderr);
  assert.equal(outcome.stderr, "");
  assert.match(notesOf(outcome), /The process of a worker cannot be started: .*EMFILE/);
  assert.match(notesOf(outcome), /worker-\d\.log is not written.*as many files and connections/);
  assert.equal(outcome.of("checkpoint.saved").length, 1);
});

test("restarts count anew once a worker has finished a group", limit, async () => {
  const killer = new Killer();
  let numKilled = 0;
  const onEvent = (event: LockstepEvent): void => {
    killer.see(event);
    if (event.type === "group.completed" && numKilled < 8 && killer.kill()) numKilled++;
  };
  const args = [...steps, "--max_worker_restarts", "1"];
  const outcome = await train("often-killed", args, onEvent, paced);
  assert.equal(outcome.code, 0, outcome.stderr);
  assert.equal(numKilled, 8);
  assert.equal(outcome.of("worker.lost").length, 8);
  assert.doesNotMatch(notesOf(outcome), /not started again/);
  assert.equal(digestOf(outcome), undisturbed);
});

test("standard output on a full disk is told of, and ends nothing", limit, async () => {
  const output = openSync("/dev/full", "w");
  for (const command of ["train", "train-local"]) {
    const directory = outputOf(`full-output-${command}`);
    const child = spawn(
      process.execPath,
      [join(packageRoot, "bin/lockstep"), command, job.configFile, "--output_dir", directory],
      {
        stdio: ["ignore", output, "pipe"],
        env: { ...process.env, LOCKSTEP_CACHE: join(job.directory, "cache") },
      },
    );
    let stderr = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const [code] = (await once(child, "close")) as [number];
    assert.equal(code, 0, stderr);
    assert.equal(stderr.match(/lockstep: output is lost, and .* goes on: ENOSPC/g)?.length, 1);
    assert.ok(existsSync(join(directory, "model.safetensors")));
  }
  closeSync(output);
});
