import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { type Life, problemsBetween, problemsOfLife, problemsOfResult } from "./account.js";
import { type ChaosInputs, createInputs, totalSteps, writeJob } from "./job.js";
import { Harness, type RunOptions } from "./run-schedule.js";
import { kindOf, type Schedule, scheduleOf } from "./schedule.js";

// Real processes under faults: the bits of a run that nothing happened to, every sample once, what was saved is
// kept, and nobody is left over. Replayed by node scripts/soak.mjs --seed N.

let inputs: ChaosInputs;
let fake: Harness;
before(async () => {
  inputs = await createInputs();
  fake = new Harness({ inputs, isReal: false });
});
after(() => inputs.remove());

async function holds(
  harness: Harness,
  schedule: Schedule,
  more: Partial<RunOptions> = {},
): Promise<void> {
  const { problems, faults, ends } = await harness.run({ schedule, slot: 0, ...more });
  assert.deepEqual(
    problems,
    [],
    `seed ${schedule.seed} after ${faults.join(", ")}; ended by themselves: ${ends.join(", ")}`,
  );
}

test("a schedule is its seed's, and a thousand seeds draw every kind of fault", () => {
  assert.deepEqual(scheduleOf(17), scheduleOf(17));
  assert.notDeepEqual(scheduleOf(17), scheduleOf(18));
  const kinds = new Set<string>();
  for (let seed = 0; seed < 1_000; seed++) {
    for (const fault of scheduleOf(seed).faults) kinds.add(kindOf(fault));
  }
  for (const kind of [
    ...["kill-worker", "stop-worker", "kill-coordinator", "stop-coordinator", "term-coordinator"],
    ...["cut", "black-hole", "ports-away", "delay", "clock", "disk-full"],
    ...["message-replay", "message-lose-reply", "message-hold", "message-duplicate"],
    ...["message-swap", "message-corrupt", "message-drop"],
  ]) {
    assert.ok(kinds.has(kind), kind);
  }
});

/** Two workers and two shards, to whom nothing happens but what a test adds. */
const quiet: Schedule = { seed: 0, numWorkers: 2, numShards: 2, isLarge: false, faults: [] };

/** What a run in one process does not have. */
const ofOneProcess = {
  ...{ listen: undefined, advertise_host: undefined, metrics_port: undefined },
  ...{ resume_from_checkpoint: undefined, save_steps: undefined, save_total_limit: undefined },
  ...{ save_strategy: "no", eval_strategy: "no", eval_steps: undefined },
};

for (const isLarge of [false, true]) {
  const what = isLarge ? "of several frames a shard" : "of a frame a shard";
  test(`the undisturbed run, ${what}, ends with the weights of one process`, async () => {
    const { model } = await fake.undisturbed({ schedule: { ...quiet, isLarge }, slot: 0 });
    const outputDir = join(inputs.directory, `local-${isLarge}`);
    const configFile = `${outputDir}.yaml`;
    await writeJob(configFile, {
      ...{ inputs, isReal: false, isLarge, numWorkers: 2, numShards: 2, totalSteps, outputDir },
      ...{ listen: "", advertiseHost: "", settings: ofOneProcess },
    });
    const local = await lockstepCommand(["train-local", configFile], `${outputDir}-cache`);
    assert.equal(local.code, 0, local.stderr);
    const weights = await readFile(join(outputDir, "model.safetensors"));
    assert.equal(createHash("sha256").update(weights).digest("hex"), model);
  });
}

/** A life of one step, of the groups that count in it. */
const life = (groups: readonly number[], more: Partial<Life> = {}): Life => ({
  exit: { code: null, signal: "SIGKILL", stderr: "" },
  wasKilled: true,
  events: [
    { type: "run.started" },
    ...groups.map((group) => ({ type: "group.completed", step: 0, group })),
    { type: "step.completed", step: 1 },
  ] as unknown as Life["events"],
  ...more,
});

test("a group that counts twice or not at all is a problem, and so is a step that is lost", () => {
  assert.deepEqual(problemsOfLife(life([2, 0, 1, 3])), []);
  assert.equal(problemsOfLife(life([0, 1, 3])).length, 1);
  assert.equal(problemsOfLife(life([0, 1, 2, 2, 3])).length, 1);
  const fresh = life([0, 1, 2, 3]);
  assert.deepEqual(problemsBetween(life([0, 1, 2, 3]), fresh), []);
  const ended = { exit: { code: 1, signal: null, stderr: "E_DISK_FULL" }, wasKilled: false };
  assert.equal(problemsBetween(life([0, 1, 2, 3], ended), fresh).length, 1);
  const expected = { model: "m", state: "s", losses: "[]" };
  assert.deepEqual(problemsOfResult(expected, expected), []);
  assert.equal(problemsOfResult({ ...expected, state: "t" }, expected).length, 1);
});

for (const seed of [3, 19, 22, 27, 36]) {
  test(`seed ${seed} ends with the undisturbed run's bits`, async () => {
    await holds(fake, scheduleOf(seed));
  });
}

test("a worker is killed at every fifth group, and the bits stay", async () => {
  let numLeased = 0;
  await holds(
    fake,
    { ...quiet, numWorkers: 3 },
    {
      totalSteps: 12,
      onEvent: ({ type }, stage) => {
        if (type === "group.leased" && ++numLeased % 5 === 0) stage.killWorker(numLeased / 5);
      },
    },
  );
  assert.ok(numLeased > 48, "groups were leased again");
});

test("with the real engine, a killed worker and a killed coordinator leave no trace", async () => {
  await holds(new Harness({ inputs, isReal: true }), {
    ...quiet,
    faults: [
      { kind: "kill-worker", who: 0, when: { at: "phase", phase: "pushing", nth: 3 } },
      { kind: "kill-coordinator", when: { at: "phase", phase: "applying", nth: 4 } },
    ],
  });
});
