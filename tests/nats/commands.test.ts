import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError } from "#lib/core/errors/index";
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
const engine = join(packageRoot, "dist/tests/support/paced-engine.js");
/** So slow that what a run is told reaches it long before its last step. */
const paced = { LOCKSTEP_TEST_BATCH_MS: "100" };
/** Until a run whose first events are on their way is known. */
const knownWithinMs = 60_000;
let job: TinyJob;
let nats: Awaited<ReturnType<typeof startNats>>;
let link: NatsLink;
let expected: string;

before(async () => {
  job = await createTinyJob({
    engine_module: engine,
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

async function known(name: string): ReturnType<typeof findRun> {
  const untilMs = performance.now() + knownWithinMs;
  for (;;) {
    try {
      return await findRun(link, name);
    } catch (error) {
      const isUnknown = isLockstepError(error) && error.code === "E_RUN_UNKNOWN";
      if (!isUnknown || performance.now() > untilMs) throw error;
      await delay(50);
    }
  }
}

const tell = async (run: string, action: RunAction): Promise<string> =>
  commandRun(link, await known(run), action);

/** What is done beside a run, one after the other; a failure is seen once the run is over. */
class Work {
  #done: Promise<unknown> = Promise.resolve();

  add(next: () => unknown): void {
    this.#done = this.#done.then(next);
    this.#done.catch(() => {});
  }

  async over(): Promise<void> {
    await this.#done;
  }
}

const train = (
  name: string,
  args: readonly string[] = [],
  onEvent?: Parameters<typeof lockstepCommand>[2],
  environment: Readonly<Record<string, string>> = onEvent === undefined ? {} : paced,
) =>
  lockstepCommand(
    [
      ...["train", job.configFile, "--json-logs", "--nats_url", nats.settings.url],
      ...["--output_dir", join(job.directory, name), "--run_name", name, ...args],
    ],
    join(job.directory, "cache"),
    onEvent,
    environment,
  );

test(
  "a run pauses between two steps, saves meanwhile, goes on, and ends with the same bits",
  withServer,
  async () => {
    const answers: string[] = [];
    const told: string[] = [];
    const work = new Work();
    const paused = await train("paused", [], (event) => {
      if (event.type === "step.completed" || event.type === "checkpoint.saved")
        told.push(event.type);
      if (event.type === "phase.changed") told.push(event.phase);
      const say = (...actions: readonly RunAction[]): void => {
        for (const action of actions) {
          work.add(async () => answers.push(await tell("paused", action)));
        }
      };
      if (event.type === "step.completed" && event.step === 5) say("pause");
      else if (event.type === "phase.changed" && event.phase === "paused") {
        say("pause", "checkpoint");
      } else if (event.type === "checkpoint.saved" && event.step < 30) say("resume", "resume");
    });
    assert.equal(paused.code, 0, paused.stderr);
    await work.over();
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
    const work = new Work();
    let numPauses = 0;
    const args = ["--reducer_processes", "1"];
    const run = await train("killed", args, (event, child) => {
      if (event.type === "note") texts.push(event.text);
      if (event.type === "step.completed") told.push(event.type);
      if (event.type === "step.completed" && event.step === 5) {
        work.add(() => tell("killed", "pause"));
      }
      if (event.type !== "phase.changed" || event.phase !== "paused") return;
      told.push("paused");
      numPauses += 1;
      if (numPauses === 1) {
        work.add(() => process.kill(coordinatorOf(child.pid ?? 0), "SIGKILL"));
      } else work.add(() => untilResumed(link, "killed"));
    });
    assert.equal(run.code, 0, run.stderr);
    await work.over();
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
    const work = new Work();
    const ended = await train("stopped", [], (event) => {
      if (event.type !== "step.completed" || event.step !== 5) return;
      work.add(async () => {
        const run = await known("stopped");
        await assert.rejects(commandRun(link, { ...run, epoch: run.epoch + 1 }, "stop"), {
          code: "E_RUN_SILENT",
          message: /no coordinator listens/,
        });
        await commandRun(link, run, "pause");
        assert.match(await commandRun(link, run, "stop"), /saves and ends/);
      });
    });
    await work.over();
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
  const work = new Work();
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
        const options = ["--use-cpu", "--metrics-port=null", "--return-timeout-ms=0"];
        const command = ["worker", "--coordinator", address, "--engine-module", engine, ...options];
        worker = lockstepCommand(command, cache, undefined, paced);
      }
      if (event.type === "step.completed" && event.step === 5) {
        work.add(() => tell("hosted", "stop"));
      }
    },
  );
  await work.over();
  await worker;
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
