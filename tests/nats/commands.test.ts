import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { NatsLink } from "#lib/wire/nats/connection";
import { findRun } from "#lib/wire/nats/event-watch";
import { commandRun, type RunAction } from "#lib/wire/nats/run-commands";
import { mastersOf } from "#tests/support/job-runs";
import { coordinatorOf } from "#tests/support/processes";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { untilResumed } from "#tests/support/resumed-run";
import { startNats } from "#tests/support/nats-server";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

const withServer = needs("natsServer");
let job: TinyJob;
let nats: Awaited<ReturnType<typeof startNats>>;
let link: NatsLink;
let expected: string;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ max_steps: 30, logging_steps: 10, sample_prompt: null, workers: 2 },
    ...{ eval_strategy: "no", eval_on_start: false, save_strategy: "no" },
  });
  if (withServer.skip !== undefined) return;
  nats = await startNats();
  link = await NatsLink.open(nats.settings, { role: "submitter", name: "test", onNews: () => {} });
  expected = mastersOf(await train("plain"));
});
after(async () => {
  await link?.close();
  await nats?.close();
  await job.remove();
});

const tell = async (run: string, action: RunAction): Promise<string> =>
  commandRun(link, await findRun(link, run), action);

const train = (
  name: string,
  args: readonly string[] = [],
  onEvent?: Parameters<typeof lockstepCommand>[2],
) =>
  lockstepCommand(
    [
      ...["train", job.configFile, "--json-logs", "--nats_url", nats.settings.url],
      ...["--output_dir", join(job.directory, name), "--run_name", name, ...args],
    ],
    join(job.directory, "cache"),
    onEvent,
  );

test(
  "a run pauses between two steps, saves meanwhile, goes on, and ends with the same bits",
  withServer,
  async () => {
    const answers: string[] = [];
    const told: string[] = [];
    let work: Promise<void> | undefined;
    const paused = await train("paused", [], (event) => {
      if (event.type === "step.completed" || event.type === "checkpoint.saved")
        told.push(event.type);
      if (event.type === "phase.changed") told.push(event.phase);
      const say = async (action: RunAction): Promise<void> => {
        answers.push(await tell("paused", action));
      };
      if (event.type === "step.completed" && event.step === 5) work = say("pause");
      else if (event.type === "phase.changed" && event.phase === "paused") {
        work = work?.then(() => say("pause")).then(() => say("checkpoint"));
      } else if (event.type === "checkpoint.saved" && event.step < 30) {
        work = work?.then(() => say("resume")).then(() => say("resume"));
      }
    });
    assert.equal(paused.code, 0, paused.stderr);
    await work;
    assert.deepEqual(answers, [
      "it waits after the step in progress, with its workers",
      "it was told to pause before",
      "it saves a checkpoint after the step in progress",
      "it goes on",
      "it is not paused",
    ]);
    // Nothing is trained between the two words, and the checkpoint is saved there.
    const from = told.indexOf("paused");
    assert.deepEqual(told.slice(from, from + 3), ["paused", "checkpoint.saved", "training"]);
    assert.equal(paused.of("run.completed")[0]?.mastersSha256, expected);
  },
);

test(
  "a paused run stays so when its coordinator is killed, until it is told to resume",
  withServer,
  async () => {
    const told: string[] = [];
    const texts: string[] = [];
    let work: Promise<void> | undefined;
    let numPauses = 0;
    const args = ["--reducer_processes", "1"];
    const run = await train("killed", args, (event, child) => {
      if (event.type === "note") texts.push(event.text);
      if (event.type === "step.completed") told.push(event.type);
      if (event.type === "step.completed" && event.step === 5) {
        work = tell("killed", "pause").then(() => {});
      }
      if (event.type !== "phase.changed" || event.phase !== "paused") return;
      told.push("paused");
      numPauses += 1;
      if (numPauses === 1) {
        void work?.then(() => {
          process.kill(coordinatorOf(child.pid ?? 0), "SIGKILL");
        });
      } else work = untilResumed(link, "killed").then(() => {});
    });
    assert.equal(run.code, 0, run.stderr);
    await work;
    const from = told.indexOf("paused");
    assert.deepEqual(told.slice(from, from + 3), ["paused", "paused", "step.completed"]);
    assert.equal(told.filter((type) => type === "step.completed").length, 30);
    assert.match(texts.join("\n"), /was paused when the coordinator before this one ended/);
    assert.equal(run.of("run.completed")[0]?.mastersSha256, expected);
  },
);

test(
  "a paused run is stopped and saved, and another epoch's coordinator hears nothing",
  withServer,
  async () => {
    let work: Promise<unknown> | undefined;
    const ended = await train("stopped", [], (event) => {
      if (event.type !== "step.completed" || event.step !== 5) return;
      work = (async () => {
        const run = await findRun(link, "stopped");
        await assert.rejects(commandRun(link, { ...run, epoch: run.epoch + 1 }, "stop"), {
          code: "E_RUN_SILENT",
          message: /no coordinator listens/,
        });
        await commandRun(link, run, "pause");
        assert.match(await commandRun(link, run, "stop"), /saves and ends/);
      })();
    });
    await work;
    assert.equal(ended.code, 130, ended.stderr);
    const [completed] = ended.of("run.completed");
    assert.equal(completed?.outcome, "interrupted");
    assert.equal(ended.of("checkpoint.saved").at(-1)?.step, completed?.step);
    await assert.rejects(tell("stopped", "pause"), { code: "E_RUN_SILENT" });
  },
);

test("lockstep coordinator, told to stop, does not end as by a signal", withServer, async () => {
  const cache = join(job.directory, "cache");
  let worker: Promise<unknown> | undefined;
  let work: Promise<unknown> | undefined;
  const run = await lockstepCommand(
    [
      ...["coordinator", job.configFile, "--json-logs", "--nats_url", nats.settings.url],
      ...["--output_dir", join(job.directory, "hosted"), "--run_name", "hosted"],
    ],
    cache,
    (event) => {
      const [, address] =
        (event.type === "note" && /lockstep worker --coordinator (\S+)/.exec(event.text)) || [];
      if (address !== undefined) {
        const module = join(packageRoot, "dist/tests/support/fake-engine.js");
        const options = ["--use-cpu", "--metrics-port=null", "--return-timeout-ms=0"];
        const command = ["worker", "--coordinator", address, "--engine-module", module, ...options];
        worker = lockstepCommand(command, cache);
      }
      if (event.type === "step.completed" && event.step === 5) work = tell("hosted", "stop");
    },
  );
  await Promise.all([worker, work]);
  // As of lockstep train: a queue, and Kubernetes, go on with a run that a signal ended.
  assert.equal(run.code, 130, run.stderr);
  assert.equal(run.of("run.completed")[0]?.outcome, "interrupted");
});

test(
  "logs are what the coordinator and its workers said, as their files have it",
  withServer,
  async () => {
    const run = await train("logged");
    assert.equal(run.code, 0, run.stderr);
    const args = ["logs", "logged", "--json", "--nats-url", nats.settings.url];
    const { code, lines, stderr } = await lockstepCommand(args, join(job.directory, "cache"));
    assert.equal(code, 0, stderr);
    const said = lines.map((line) => JSON.parse(line) as { source: string; text: string });
    const of = (source: string): string[] =>
      said.filter((line) => line.source === source).map(({ text }) => text);
    assert.equal(of("coordinator").filter((text) => text.startsWith("step ")).length, 30);
    for (const worker of ["worker-1", "worker-2"]) {
      const file = join(job.directory, "logged", "logs", `${worker}.log`);
      const written = readFileSync(file, "utf8").trimEnd().split("\n");
      const told = of(worker);
      assert.ok(
        told.some((text) => text.includes("registered at")),
        told.join("\n"),
      );
      // What it says when the run is over may come too late.
      assert.deepEqual(told, written.slice(0, told.length));
    }
  },
);
