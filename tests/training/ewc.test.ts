import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { mastersOf, runJob, WorkerKiller } from "#tests/support/job-runs";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Whoever measures and computes, and from wherever it goes on, a run with EWC ends with the same bits.

const saving = ["--save-strategy", "steps", "--save-steps", "2", "--eval-strategy", "no"];
const fakeEngine = join(packageRoot, "dist/tests/support/fake-engine.js");

const jobs: TinyJob[] = [];
after(async () => {
  for (const { remove } of jobs) await remove();
});

async function ewcJob(settings: Readonly<Record<string, unknown>>): Promise<TinyJob> {
  const job = await createTinyJob({
    ...{ max_steps: 4, global_batch_size: 8, gradient_groups: 2, ewc_lambda: 3 },
    ...{ sample_prompt: null, eval_on_start: false, ...settings },
  });
  jobs.push(job);
  return job;
}

const general = ({ directory }: TinyJob): string[] => [
  ...["--general-dataset", join(directory, "4.txt")],
];

let job: TinyJob;
let expected: string;
before(async () => {
  // 100 rows in 4 rounds of 2 groups.
  job = await ewcJob({ engine_module: fakeEngine, ewc_samples: 100 });
  expected = mastersOf(await runJob(job, "train-local", "local", general(job)));
});

test("one process, any number of workers and of shards end with the same bits", async () => {
  for (const [workers, shards] of [
    [1, 1],
    [2, 2],
    [2, 3],
  ] as const) {
    const name = `${workers}-${shards}`;
    const run = await runJob(job, "train", name, [
      ...general(job),
      ...["--workers", String(workers), "--reducer-shards", String(shards), ...saving],
    ]);
    assert.equal(mastersOf(run), expected, name);
    const [measured] = run.of("fisher.measured");
    assert.equal(measured?.numRows, 100);
    assert.ok((measured?.meanSquare ?? 0) > 0);
    const steps = run.of("step.completed");
    // At the anchor there is nothing to pull.
    assert.equal(steps[0]?.ewcPenalty, 0);
    for (const { ewcPenalty = 0 } of steps.slice(1)) assert.ok(ewcPenalty > 0);
  }
  const without = ["--ewc-lambda", "0", "--ewc-samples", "256"];
  assert.notEqual(
    mastersOf(await runJob(job, "train-local", "plain", [...general(job), ...without])),
    expected,
  );
});

test("a worker that is killed while it measures, or while it trains, leaves no trace", async () => {
  for (const [name, killer] of [
    ["measuring", new WorkerKiller(2, { isMeasurement: true })],
    ["training", new WorkerKiller(1)],
  ] as const) {
    const run = await runJob(
      job,
      "train",
      name,
      [...general(job), "--workers", "2"],
      killer.onEvent,
    );
    killer.assertLost(run);
    assert.equal(mastersOf(run), expected, name);
  }
});

test("workers verify each other's squares, and bits stay", async () => {
  const verifying = ["--workers", "2", "--verify-groups", "1"];
  const run = await runJob(job, "train", "verified", [...general(job), ...verifying]);
  assert.equal(mastersOf(run), expected);
  const measured = run.of("group.leased").filter(({ isMeasurement = false }) => isMeasurement);
  assert.equal(measured.length, 16);
});

test("a run that goes on has F and the anchor from its checkpoint, and measures nothing", async () => {
  const checkpoint = join(job.directory, "2-3", "checkpoint-2");
  const resuming = [...saving, "--resume-from-checkpoint", checkpoint];
  const resumed = await runJob(job, "train", "resumed", [
    ...general(job),
    ...["--workers", "1", "--reducer-shards", "2", ...resuming],
  ]);
  assert.equal(mastersOf(resumed), expected);
  assert.deepEqual(resumed.of("fisher.measured"), []);
  const own = join(checkpoint, "lockstep");
  const files = (await readdir(own)).filter((file) => /^optimizer-\d/.test(file));
  for (const file of files) {
    const opened = await openSafetensors(join(own, file));
    assert.ok(opened.tensors.has("ewc_fisher") && opened.tensors.has("ewc_anchor"), file);
    await opened.close();
  }
  for (const [key, value] of [
    ["ewc_lambda", "4"],
    ["ewc_samples", "90"],
    ["ewc_normalize", "false"],
  ] as const) {
    const other = await runJob(job, "train", `other-${key}`, [
      ...[...general(job), ...resuming, `--${key.replace("_", "-")}`, value],
    ]);
    assert.equal(other.code, 1);
    assert.match(other.stderr, new RegExp(`E_RESUME_MISMATCH.*${key} was`));
  }
});

test("a run that is stopped while it measures saves nothing and measures again", async () => {
  let stopped = false;
  const first = await runJob(
    job,
    "train",
    "stopped",
    [...general(job), ...saving],
    (event, child) => {
      if (stopped || event.type !== "group.leased" || event.isMeasurement !== true) return;
      stopped = true;
      child.kill("SIGINT");
    },
  );
  assert.equal(first.code, 130, first.stderr);
  assert.deepEqual(first.of("step.completed"), []);
  const again = ["--resume-from-checkpoint", "auto"];
  const second = await runJob(job, "train", "stopped", [...general(job), ...saving, ...again]);
  assert.equal(mastersOf(second), expected);
  assert.equal(second.of("fisher.measured").length, 1);
});

test("EWC, replay as a task and gradual unfreezing go together, across a resume too", async () => {
  const both = [
    ...[...general(job), "--replay-weight", "0.5", "--unfreeze-steps", "1"],
    ...["--gradient-groups", "1"],
  ];
  const bits = mastersOf(await runJob(job, "train-local", "both-local", both));
  const two = await runJob(job, "train", "both", [...both, "--workers", "2", ...saving]);
  assert.equal(mastersOf(two), bits);
  const checkpoint = join(job.directory, "both", "checkpoint-2");
  const resuming = [...both, ...saving, "--resume-from-checkpoint", checkpoint];
  assert.equal(mastersOf(await runJob(job, "train", "both-resumed", resuming)), bits);
});

test("what EWC cannot do is refused by the names of the keys", async () => {
  const refused = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await runJob(job, "train-local", "refused", args);
    assert.equal(code, 1);
    return stderr;
  };
  assert.match(await refused(), /E_CONFIG_CONFLICT.*ewc_lambda and general_dataset/);
  assert.match(
    await refused(...general(job), "--fp16", "true"),
    /E_CONFIG_CONFLICT.*ewc_lambda and fp16.*float16's range/,
  );
  assert.match(
    await refused(...general(job), "--ewc-lambda", "0"),
    /E_CONFIG_CONFLICT.*ewc_samples and ewc_lambda/,
  );
});
