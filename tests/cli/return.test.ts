import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { freePorts } from "#tests/support/ports";
import { type LinesOutcome, runLines } from "#tests/support/run-lines";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A coordinator that is stopped, and workers of other machines, in real processes.

const limit = { timeout: 240_000 };
const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
let job: TinyJob;

before(async () => {
  job = await createTinyJob({ engine_module: engine });
});

/** Whatever a test that fails leaves waiting. */
const running = new Set<ChildProcess>();

after(async () => {
  for (const child of running) child.kill("SIGKILL");
  await job.remove();
});

const lockstep = (
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
): Promise<CommandOutcome> => lockstepCommand(args, join(job.directory, "cache"), onEvent);

const coordinator = (
  name: string,
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
): Promise<CommandOutcome> =>
  lockstep(
    [
      ...["coordinator", job.configFile, "--json-logs", "--resume_from_checkpoint", "auto"],
      ...["--output_dir", join(job.directory, name), ...args],
    ],
    onEvent,
  );

interface RunningWorker {
  readonly ended: Promise<LinesOutcome>;
  readonly child: () => ChildProcess | undefined;
}

function startWorker(address: string, args: readonly string[] = []): RunningWorker {
  let worker: ChildProcess | undefined;
  const ended = runLines(
    [
      ...[process.execPath, join(packageRoot, "bin/lockstep"), "worker", "--use-cpu"],
      ...["--coordinator", address, "--engine-module", engine, "--metrics-port", "null", ...args],
    ],
    { cwd: job.directory },
    (_, child) => {
      worker = child;
      running.add(child);
    },
  );
  return { ended, child: () => worker };
}

/** Stops a coordinator in order once it has made some steps, and so many workers have had a part in its life. */
const stopAfter = (numSteps: number, numWorkers: number): Parameters<typeof lockstepCommand>[2] => {
  let isStopped = false;
  const busy = new Set<string>();
  return (event, child) => {
    if (event.type === "group.completed") busy.add(event.workerId);
    if (event.type !== "step.completed" || event.step < numSteps || isStopped) return;
    if (busy.size < numWorkers) return;
    isStopped = true;
    child.kill("SIGTERM");
  };
};

test(
  "workers wait for a run that was stopped, twice, and end when it is finished",
  limit,
  async () => {
    const listen = `127.0.0.1:${await freePorts(3)}`;
    const workers = [startWorker(listen), startWorker(listen)];
    const both = ["--listen", listen, "--min_workers", "2"];
    const endless = [...both, "--max_steps", "100000"];
    let step = 0;
    for (const numSteps of [3, 1]) {
      const stopped = await coordinator(
        "returning",
        endless,
        stopAfter(step + numSteps, workers.length),
      );
      assert.equal(stopped.code, 143, stopped.stderr);
      step = stopped.of("run.completed")[0]?.step ?? 0;
    }
    for (const { child } of workers) assert.equal(child()?.exitCode, null, "it waits");
    const total = ["--max_steps", String(step + 4)];
    const last = await coordinator("returning", [...both, ...total]);
    assert.equal(last.code, 0, last.stderr);
    assert.equal(last.of("step.completed")[0]?.step, step + 1);
    for (const { ended } of workers) {
      const { code, text } = await ended;
      assert.equal(code, 0, text);
      assert.equal(
        text.match(/the run was stopped; its return .* is waited for/g)?.length,
        2,
        text,
      );
      assert.match(text, /finished after \d+ gradient groups/);
    }
    const digestOf = (outcome: CommandOutcome): string | undefined =>
      outcome.of("run.completed")[0]?.mastersSha256;
    const undisturbed = await lockstep([
      ...["train", job.configFile, "--json-logs", ...total],
      ...["--output_dir", join(job.directory, "undisturbed")],
    ]);
    assert.equal(digestOf(last), digestOf(undisturbed));
  },
);

test(
  "a run that does not come back ends its workers with 75, and a signal with 143",
  limit,
  async () => {
    const listen = `127.0.0.1:${await freePorts(3)}`;
    const [patient, short, none] = [
      startWorker(listen),
      startWorker(listen, ["--return-timeout-ms", "1500"]),
      startWorker(listen, ["--return-timeout-ms", "0"]),
    ];
    const busy = new Set<string>();
    let isStopped = false;
    const stopped = await coordinator(
      "gone",
      ["--listen", listen, "--max_steps", "100000", "--gradient_groups", "4"],
      (event, child) => {
        if (event.type === "group.completed") busy.add(event.workerId);
        if (busy.size < 3 || isStopped) return;
        isStopped = true;
        child.kill("SIGTERM");
      },
    );
    assert.equal(stopped.code, 143, stopped.stderr);
    for (const worker of [short, none]) {
      const { code, text } = (await worker?.ended) ?? {};
      assert.equal(code, 75, text);
      assert.match(text ?? "", /interrupted after \d+ gradient groups?/);
    }
    assert.doesNotMatch((await none?.ended)?.text ?? "", /is waited for/);
    assert.equal(patient?.child()?.exitCode, null, "it waits");
    patient?.child()?.kill("SIGTERM");
    const { code, text } = (await patient?.ended) ?? {};
    assert.equal(code, 143, text);
  },
);

test(
  "a finished run at the address of the one that is waited for is not taken for it",
  limit,
  async () => {
    const listen = `127.0.0.1:${await freePorts(3)}`;
    const other = await lockstep([
      ...["train", job.configFile, "--json-logs", "--output_dir", join(job.directory, "other")],
    ]);
    assert.equal(other.code, 0, other.stderr);
    const worker = startWorker(listen);
    const stopped = await coordinator(
      "waited-for",
      ["--listen", listen, "--max_steps", "100000"],
      stopAfter(2, 1),
    );
    assert.equal(stopped.code, 143, stopped.stderr);
    const over = await coordinator("other", ["--listen", listen]);
    assert.equal(over.code, 0, over.stderr);
    assert.deepEqual(over.of("step.completed"), []);
    const step = stopped.of("run.completed")[0]?.step ?? 0;
    const last = await coordinator("waited-for", [
      ...["--listen", listen, "--max_steps", String(step + 1)],
    ]);
    assert.equal(last.code, 0, last.stderr);
    const { code, text } = await worker.ended;
    assert.equal(code, 0, text);
    assert.match(text, /E_OTHER_RUN/);
  },
);
