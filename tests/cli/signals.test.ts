import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readTrainerState } from "#lib/checkpoint/index";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import type { CommandOutcome } from "#tests/support/lockstep-command";
import { type LinesOutcome, runLines } from "#tests/support/run-lines";
import { descendantsOf, signalAll } from "#tests/support/processes";

// Case 10, in real processes: an engine without TensorFlow, and signals as batch systems send them.

const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
const program = join(packageRoot, "bin/lockstep");
let job: CaseJob;
let configFile = "";

before(async () => {
  job = await createCaseJob("10-sigterm-to-every-process");
  configFile = await job.writeJob({ engine_module: engine, max_steps: 100_000, reducer_shards: 1 });
});

after(() => job.remove());

/** The case's run in a directory of its own; `act` is called once, when it has both workers and made some steps. */
async function run(
  output: string,
  act: (child: ChildProcess) => void,
  args: readonly string[] = [],
  onEvent: (event: LockstepEvent, child: ChildProcess) => void = () => {},
): Promise<CommandOutcome> {
  let hasActed = false;
  let numJoined = 0;
  const command = ["train", configFile, "--json-logs", "--output_dir", job.file(output), ...args];
  return job.lockstep(command, (event, child) => {
    if (event.type === "worker.joined") numJoined++;
    const isUnderWay = event.type === "step.completed" && event.step >= 3 && numJoined === 2;
    if (isUnderWay && !hasActed) {
      hasActed = true;
      act(child);
    }
    onEvent(event, child);
  });
}

const workerLog = (output: string, index: number): Promise<string> =>
  readFile(job.file(`${output}/logs/worker-${index}.log`), "utf8");

async function savedInOrder(output: string, outcome: CommandOutcome): Promise<void> {
  const completed = outcome.of("run.completed")[0];
  assert.equal(completed?.outcome, "interrupted", outcome.stderr);
  const steps = outcome.of("step.completed");
  assert.equal(completed?.step, steps.at(-1)?.step, "the step in progress was finished");
  assert.equal(completed?.directory, job.file(`${output}/checkpoint-${completed?.step}`));
  const state = await readTrainerState(completed?.directory ?? "");
  assert.equal(state.global_step, completed?.step);
  assert.deepEqual(outcome.of("worker.lost"), []);
  assert.equal(outcome.of("worker.joined").length, 2);
  for (const index of [1, 2]) {
    const starts = (await workerLog(output, index)).match(/^--- started/gm) ?? [];
    assert.equal(starts.length, 1, "no worker was started again");
  }
}

test("TERM, HUP, QUIT and INT, to one process or to all: the step is finished and saved", async () => {
  for (const [signal, code] of [
    ["SIGTERM", 143],
    ["SIGHUP", 129],
    ["SIGQUIT", 131],
    ["SIGINT", 130],
  ] as const) {
    for (const toAll of signal === "SIGTERM" ? [true, false] : [true]) {
      const output = `${signal}-${toAll}`;
      const outcome = await run(output, ({ pid = 0 }) => {
        assert.equal(descendantsOf(pid).length, 2);
        if (toAll) signalAll(pid, signal);
        else process.kill(pid, signal);
      });
      assert.equal(outcome.code, code, outcome.stderr);
      await savedInOrder(output, outcome);
      const log = await workerLog(output, 1);
      assert.equal(log.includes(`${signal} is left to the run's process`), toAll, log);
    }
  }
});

test("TERM to all while a checkpoint is written and again later: still one orderly end", async () => {
  let isUnderWay = false;
  let isSent = false;
  const outcome = await run(
    "saving",
    () => {
      isUnderWay = true;
    },
    ["--save_strategy", "steps", "--save_steps", "4"],
    (event, { pid = 0 }) => {
      // The step whose checkpoint is being written now.
      if (event.type !== "step.completed" || event.step % 4 !== 0) return;
      if (!isUnderWay || isSent) return;
      isSent = true;
      signalAll(pid, "SIGTERM");
      signalAll(pid, "SIGTERM");
    },
  );
  assert.equal(outcome.code, 143, outcome.stderr);
  await savedInOrder("saving", outcome);
});

test("USR1 and USR2 to all save and the run goes on; nobody opens a debugger", async () => {
  for (const signal of ["SIGUSR1", "SIGUSR2"] as const) {
    let savedAt = 0;
    let isStopped = false;
    const outcome = await run(
      signal,
      ({ pid = 0 }) => {
        signalAll(pid, signal);
        signalAll(pid, signal);
      },
      [],
      (event, { pid = 0 }) => {
        if (event.type === "checkpoint.saved") savedAt ||= event.step;
        const goesOn = event.type === "step.completed" && savedAt > 0 && event.step > savedAt + 2;
        if (!goesOn || isStopped) return;
        isStopped = true;
        process.kill(pid, "SIGTERM");
      },
    );
    assert.equal(outcome.code, 143, outcome.stderr);
    // Node says on standard error where its debugger listens.
    assert.equal(outcome.stderr, "");
    assert.ok(savedAt >= 3);
    const state = await readTrainerState(job.file(`${signal}/checkpoint-${savedAt}`));
    assert.equal(state.global_step, savedAt);
    assert.ok(
      (await stat(job.file(`${signal}/checkpoint-${savedAt}/lockstep/state.json`))).size > 0,
    );
    await savedInOrder(signal, outcome);
    const notes = outcome.lines.filter((line) =>
      line.includes(`${signal}: saving after this step`),
    );
    assert.ok(notes.length > 0);
    for (const index of [1, 2]) assert.doesNotMatch(await workerLog(signal, index), /Debugger/);
  }
});

test("with user_signal: stop, USR1 is an orderly end", async () => {
  const act = ({ pid = 0 }: ChildProcess): void => signalAll(pid, "SIGUSR1");
  const outcome = await run("stop", act, ["--user_signal", "stop"]);
  assert.equal(outcome.code, 138, outcome.stderr);
  assert.equal(outcome.stderr, "");
  await savedInOrder("stop", outcome);
});

test("before the run is open a signal exits at once, with its code", async () => {
  for (const [signal, code] of [
    ["SIGHUP", 129],
    ["SIGQUIT", 131],
  ] as const) {
    let isSent = false;
    const outcome = await job.lockstep(
      ["train", configFile, "--json-logs", "--output_dir", job.file("early")],
      (event, child) => {
        if (event.type !== "phase.changed" || event.phase !== "preparing" || isSent) return;
        isSent = true;
        child.kill(signal);
      },
    );
    assert.equal(outcome.code, code, outcome.stderr);
    assert.ok(!existsSync(job.file("early/checkpoint-1")));
  }
});

const start = (
  command: readonly string[],
  onLine: (line: string, child: ChildProcess) => void,
): Promise<LinesOutcome> =>
  runLines(command, { cwd: job.directory, env: { LOCKSTEP_CACHE: job.file("cache") } }, onLine);

test("under nohup, and in a shell that ignores HUP, the run lives on when the terminal closes", async () => {
  const train = `"${process.execPath}" "${program}" train "${configFile}" --max_steps 40 --save_strategy no`;
  for (const [name, script] of [
    ["nohup", `nohup ${train} --output_dir nohup 2>&1`],
    ["trap", `trap '' HUP; ${train} --output_dir trap; exit $?`],
  ] as const) {
    let isSent = false;
    const { code, text } = await start(["bash", "-c", script], (line, child) => {
      if (!/ step 3\/40 /.test(line) || isSent) return;
      isSent = true;
      // Not the shell in front of it.
      for (const pid of descendantsOf(child.pid ?? 0)) process.kill(pid, "SIGHUP");
    });
    assert.ok(isSent, text);
    assert.equal(code, 0, text);
    assert.match(text, /Finished/, name);
  }
});

test("a command that saves nothing on its way says so, and opens no debugger", async () => {
  let isSent = false;
  const command = [process.execPath, program, "train-local", configFile];
  const { text } = await start([...command, "--output_dir", "local"], (_, child) => {
    if (isSent) return;
    isSent = true;
    child.stderr?.on("data", () => child.kill("SIGKILL"));
    child.kill("SIGUSR1");
  });
  assert.match(text, /SIGUSR1 is ignored: lockstep train-local saves nothing on its way/);
  assert.doesNotMatch(text, /Debugger/);
});

test("a worker without a coordinator: USR1 has no effect, TERM ends it", async () => {
  const worker = [process.execPath, program, "worker", "--coordinator", "127.0.0.1:1"];
  let numSent = 0;
  const { code, text } = await start(
    [...worker, "--use-cpu", "--engine-module", engine, "--reconnect-timeout-ms", "600000"],
    (line, child) => {
      if (line.includes("trying again") && numSent === 0) {
        numSent = 1;
        child.kill("SIGUSR1");
      }
      if (line.includes("SIGUSR1 has no effect") && numSent === 1) {
        numSent = 2;
        child.kill("SIGTERM");
      }
    },
  );
  assert.equal(code, 143, text);
  assert.match(text, /left after 0 gradient groups/);
  assert.doesNotMatch(text, /Debugger/);
});

test("a worker of its own drains: its group is sent, and none is leased again", async () => {
  const workers: Promise<LinesOutcome>[] = [];
  const startWorker = (address: string, onStart: (child: ChildProcess) => void): void => {
    const worker = [process.execPath, program, "worker", "--coordinator", address, "--use-cpu"];
    const command = [...worker, "--return-timeout-ms", "0"];
    let isStarted = false;
    workers.push(
      start([...command, "--engine-module", engine], (_, child) => {
        if (!isStarted) onStart(child);
        isStarted = true;
      }),
    );
  };
  let first: ChildProcess | undefined;
  let address = "";
  let isStopped = false;
  const coordinator = await job.lockstep(
    [
      ...["coordinator", configFile, "--json-logs", "--output_dir", job.file("drained")],
      ...["--gradient_groups", "2"],
    ],
    (event, child) => {
      const { text = "" } = event as unknown as { text?: string };
      const found = /--coordinator (\S+)/.exec(text)?.[1];
      if (found !== undefined) {
        address = found;
        startWorker(address, (worker) => {
          first = worker;
        });
      }
      if (event.type === "step.completed") {
        if (event.step === 5) first?.kill("SIGTERM");
        if (workers.length === 2 && event.step > 20 && !isStopped) {
          isStopped = true;
          child.kill("SIGTERM");
        }
      }
      if (event.type === "worker.left" && workers.length === 1) startWorker(address, () => {});
    },
  );
  assert.equal(coordinator.code, 143, coordinator.stderr);
  assert.deepEqual(coordinator.of("group.requeued"), []);
  assert.deepEqual(coordinator.of("worker.lost"), []);
  const [drained, second] = await Promise.all(workers);
  assert.equal(drained?.code, 143, drained?.text);
  assert.match(drained?.text ?? "", /the group in work is finished and sent first/);
  // The run was stopped and may go on: a job system starts this worker again.
  assert.equal(second?.code, 75, second?.text);
  assert.match(second?.text ?? "", /interrupted after \d+ gradient groups/);
});
