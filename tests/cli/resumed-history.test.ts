import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse, stringify } from "yaml";
import { EventHistory } from "#coordinator/event-history";
import { readTrainerState } from "#lib/checkpoint/index";
import type { LogEntry } from "#lib/checkpoint/trainer-state";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { runLines } from "#tests/support/run-lines";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A run that is killed three times, each time at another point, and told at its end as if it had not been.

const settings = {
  engine_module: join(packageRoot, "dist/tests/support/paced-engine.js"),
  max_steps: 40,
  // Entries lie across the checkpoints, and evaluations beside them.
  logging_steps: 4,
  logging_first_step: true,
  eval_strategy: "steps",
  eval_steps: 6,
  save_strategy: "steps",
  save_steps: 6,
  include_num_input_tokens_seen: true,
};
let job: TinyJob;

before(async () => {
  job = await createTinyJob(settings);
});

after(() => job.remove());

type OnEvent = Parameters<typeof lockstepCommand>[2];

const train = (
  output: string,
  args: readonly string[],
  onEvent?: OnEvent,
  environment?: Readonly<Record<string, string>>,
) =>
  lockstepCommand(
    ["train", job.configFile, "--output_dir", join(job.directory, output), ...args],
    join(job.directory, "cache"),
    onEvent,
    environment,
  );

/** Without what clocks measured. */
const withoutTimes = (entries: readonly LogEntry[]): unknown[] =>
  entries.map((entry) =>
    Object.fromEntries(Object.entries(entry).filter(([name]) => !/runtime|per_second/.test(name))),
  );

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

/** What the dashboard shows: its own fold over what a page that opens late is told. */
async function pageOf(events: readonly LockstepEvent[]): Promise<{
  readonly losses: readonly { readonly x: number; readonly y: number }[];
  readonly evaluations: readonly { readonly x: number; readonly y: number }[];
  readonly samples: readonly { readonly step: number; readonly text: string }[];
  readonly stepsMade: number;
}> {
  const { RunState } = (await import(join(packageRoot, "dist/dashboard/run-state.js"))) as {
    RunState: new () => Awaited<ReturnType<typeof pageOf>> & { apply(event: unknown): void };
  };
  const bus = new InProcessEventBus();
  const history = new EventHistory(bus, () => 0);
  for (const event of events) bus.publish(event);
  const page = new RunState();
  for (const { timeMs, event } of history.events()) page.apply({ timeMs, ...event });
  return page;
}

test("killed three times and resumed: the whole history everywhere, and the undisturbed bits", async () => {
  const calm = await train("calm", ["--json-logs"]);
  assert.equal(calm.code, 0, calm.stderr);

  const killedAt = async (
    isMoment: (event: LockstepEvent) => boolean,
    args: readonly string[],
  ): Promise<CommandOutcome> => {
    const kill: OnEvent = (event, child) => {
      if (isMoment(event)) child.kill("SIGKILL");
    };
    // It is to be there still when the signal comes.
    const paced = { LOCKSTEP_TEST_BATCH_MS: "100" };
    const outcome = await train("hurt", ["--json-logs", ...args], kill, paced);
    assert.equal(outcome.code, null, "it was killed");
    return outcome;
  };
  const resume = ["--resume_from_checkpoint", "true"];
  // In the middle of a step, after an evaluation whose checkpoint is not written yet, while one is written.
  let isSaved = false;
  await killedAt((event) => {
    isSaved ||= event.type === "checkpoint.saved";
    return isSaved && event.type === "group.leased";
  }, []);
  const second = await killedAt(
    (event) => event.type === "evaluation.completed" && event.step === 18,
    resume,
  );
  const third = await killedAt(
    (event) => event.type === "step.completed" && event.step === 30,
    resume,
  );
  const last = await train("hurt", ["--json-logs", ...resume]);
  assert.equal(last.code, 0, last.stderr);

  assert.match(digestOf(calm) ?? "", /^[0-9a-f]{64}$/);
  assert.equal(digestOf(last), digestOf(calm));

  const [ofCalm, ofHurt] = await Promise.all(
    ["calm", "hurt"].map((name) => readTrainerState(join(job.directory, name))),
  );
  assert.ok(ofCalm !== undefined && ofHurt !== undefined);
  assert.deepEqual(withoutTimes(ofHurt.log_history), withoutTimes(ofCalm.log_history));
  assert.equal(ofHurt.num_input_tokens_seen, ofCalm.num_input_tokens_seen);
  assert.equal(ofHurt.total_flos, ofCalm.total_flos);

  // trainer_log.jsonl: a line for each entry, none twice, times that never go back.
  const lines = (await readFile(join(job.directory, "hurt", "trainer_log.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number | string>);
  assert.deepEqual(
    lines.map((line) => [line["current_steps"], line["loss"] ?? null, line["eval_loss"] ?? null]),
    ofCalm.log_history.map((entry) => [
      entry.step,
      entry["loss"] ?? null,
      entry["eval_loss"] ?? null,
    ]),
  );
  const log = await readFile(join(job.directory, "hurt", "logs", "worker-1.log"), "utf8");
  assert.equal(log.match(/^--- started/gm)?.length, 4);

  const validations = (outcome: CommandOutcome): (readonly [number, number])[] =>
    outcome.of("evaluation.completed").map(({ step, loss }) => [step, loss]);
  for (const outcome of [second, third, last]) {
    const [resumed] = outcome.of("run.resumed");
    assert.ok(resumed !== undefined);
    assert.equal(outcome.of("step.completed")[0]?.step, resumed.step + 1);
    const told = resumed.evaluations.map(({ step, loss }) => [step, loss] as const);
    assert.deepEqual(
      told,
      validations(calm).filter(([step]) => step <= resumed.step),
    );
    assert.deepEqual(resumed.samples, [stripped(calm.of("sample.generated")[0])]);
    const tokens = calm
      .of("step.completed")
      .filter(({ step }) => step <= resumed.step)
      .reduce((sum, { numTokens }) => sum + numTokens, 0);
    assert.equal(resumed.numTokens, tokens);
    assert.ok((resumed.seconds ?? 0) > 0);
  }
  const since = [second, third, last].map((outcome) => outcome.of("run.resumed")[0]?.seconds ?? 0);
  assert.deepEqual(
    since,
    since.toSorted((a, b) => a - b),
  );

  const [calmPage, page] = await Promise.all([pageOf(calm.events), pageOf(last.events)]);
  assert.deepEqual(page.evaluations, calmPage.evaluations);
  assert.deepEqual(page.samples, calmPage.samples);
  assert.equal(page.stepsMade, 40);
  // Before the resumption the curve has the history's entries: 1, 4, 8 and so on.
  const { step = 0 } = last.of("run.resumed")[0] ?? {};
  assert.deepEqual(
    page.losses.filter(({ x }) => x <= step).map(({ x, y }) => [x, y]),
    ofCalm.log_history
      .filter((entry) => "loss" in entry && entry.step <= step)
      .map((entry) => [entry.step, entry["loss"]]),
  );
  assert.deepEqual(
    page.losses.filter(({ x }) => x > step),
    calmPage.losses.filter(({ x }) => x > step),
  );
});

const stripped = (event: LockstepEvent | undefined): unknown => {
  if (event === undefined) return undefined;
  const { type: _, time: __, ...rest } = event as LockstepEvent & { time?: string };
  return rest;
};

test("a run that is stopped says how to go on; the resumed one sums up the whole run", async () => {
  const output = join(job.directory, "half");
  const configFile = join(job.directory, "half.yaml");
  const writeJob = async (maxSteps: number): Promise<void> => {
    const text = await readFile(job.configFile, "utf8");
    const changed = { output_dir: output, max_steps: maxSteps };
    await writeFile(configFile, stringify({ ...(parse(text) as object), ...changed }));
  };
  const options = {
    cwd: job.directory,
    env: { LOCKSTEP_CACHE: join(job.directory, "cache") },
  };
  await writeJob(100_000);
  const program = join(packageRoot, "bin/lockstep");
  let isSent = false;
  const stopped = await runLines([program, "train", configFile], options, (line, child) => {
    if (!/ step 5\/100000 /.test(line) || isSent) return;
    isSent = true;
    child.kill("SIGTERM");
  });
  assert.equal(stopped.code, 143, stopped.text);
  const [, directory = ""] =
    /Go on with:\n\n {2}.* --resume_from_checkpoint (\S+)\n/.exec(stopped.text) ?? [];
  const step = Number(/checkpoint-(\d+)$/.exec(directory)?.[1]);
  assert.ok(step >= 5, stopped.text);

  const total = step + 4;
  await writeJob(total);
  const [, command = ""] = /Go on with:\n\n {2}(.*)\n/.exec(stopped.text) ?? [];
  const resumed = await runLines(["bash", "-c", command], options);
  assert.equal(resumed.code, 0, resumed.text);
  assert.match(resumed.text, new RegExp(`goes on from \\S+/checkpoint-${step}: ${step} steps`));
  assert.doesNotMatch(resumed.text, /Go on with/);
  const whole = await train("whole", ["--max_steps", String(total)]);
  assert.equal(whole.code, 0, whole.stderr);
  const [ofResumed, ofWhole] = [resumed.text, whole.lines.join("\n")].map((text) => ({
    validation: /^│ validation loss {2}(.*?) *│$/m.exec(text)?.[1],
    trained: /^│ trained +(\d+ steps, [\d,]+ tokens) in/m.exec(text)?.[1],
    samples: text.match(/^Sample .*\n.*$/gm),
    digest: /SHA-256 ([0-9a-f]{64})/.exec(text)?.[1],
  }));
  assert.match(ofWhole?.validation ?? "", /→/);
  assert.equal(ofWhole?.samples?.length, 2);
  assert.deepEqual(ofResumed, ofWhole);
  assert.match(resumed.text, new RegExp(`; since step ${step}: 4 steps in `));
});
