import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import type { CommandOutcome } from "#tests/support/lockstep-command";

// Situations that people reported of resuming and saving, on an engine that needs no TensorFlow.

const engine = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  reducer_shards: 1,
};

async function caseJob(t: { after: (f: () => Promise<void>) => void }, name: string | undefined) {
  const job = await createCaseJob(name);
  t.after(job.remove);
  return job;
}

async function train(
  job: CaseJob,
  settings: Readonly<Record<string, unknown>>,
): Promise<CommandOutcome> {
  const file = await job.writeJob({ ...engine, ...settings });
  return job.lockstep(["train", file, "--json-logs"]);
}

const checkpoints = async (job: CaseJob, output = "out"): Promise<string[]> =>
  (await readdir(job.file(output))).filter((name) => name.startsWith("checkpoint-")).sort();

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

test("03: fewer steps than the checkpoint has made are refused with both; as many leave nothing to do", async (t) => {
  const job = await caseJob(t, "03-resume-past-the-end");
  const saving = { save_strategy: "steps", save_steps: 2 };
  const first = await train(job, { ...saving, max_steps: 6 });
  assert.equal(first.code, 0, first.stderr);
  const resume = { ...saving, resume_from_checkpoint: true };
  const past = await train(job, { ...resume, max_steps: 4 });
  assert.equal(past.code, 1);
  assert.match(past.stderr, /E_RESUME_PAST_END.*checkpoint-6 has made 6 steps.*end after 4/);
  const equal = await train(job, { ...resume, max_steps: 6 });
  assert.equal(equal.code, 0, equal.stderr);
  assert.match(
    equal.lines.join("\n"),
    /Nothing is left to do: out holds the result.*after 6 steps/,
  );
  assert.deepEqual(equal.of("step.completed"), []);
  assert.deepEqual(equal.of("worker.joined"), []);
  // The same by the epoch: 8 rows in steps of 2 are 4 steps an epoch.
  const epochs = { ...resume, max_steps: -1, num_train_epochs: 1 };
  assert.match((await train(job, epochs)).stderr, /E_RESUME_PAST_END.* 6 steps.* 4/);
  const longer = await train(job, { ...resume, max_steps: -1, num_train_epochs: 2 });
  assert.equal(longer.code, 0, longer.stderr);
  assert.deepEqual(
    longer.of("step.completed").map(({ step }) => step),
    [7, 8],
  );
});

test("16: auto goes on from a checkpoint if there is one, and else starts", async (t) => {
  const job = await caseJob(t, undefined);
  const place = join(packageRoot, "tests/fixtures/cases/16-auto-resume-first-start");
  await cp(place, job.directory, { recursive: true });
  const axolotl = (file: string, ...args: string[]): Promise<CommandOutcome> =>
    job.lockstep([
      ...["train", job.file(file), "--json-logs", "--engine_module", engine.engine_module, ...args],
    ]);
  for (const file of ["axolotl.yaml", "a2.yaml"]) {
    const output = ["--output_dir", `out-${file}`];
    const first = await axolotl(file, ...output);
    assert.equal(first.code, 0, first.stderr);
    assert.match(
      first.of("run.started")[0]?.dataLines?.join("\n") ?? "",
      /no checkpoint is in out/,
    );
    assert.equal(first.of("step.completed").length, 4);
    const second = await axolotl(file, ...output, "--max_steps", "6");
    assert.equal(second.code, 0, second.stderr);
    assert.deepEqual(
      second.of("step.completed").map(({ step }) => step),
      [5, 6],
    );
    const third = await axolotl(file, ...output, "--max_steps", "6");
    assert.equal(third.code, 0, third.stderr);
    assert.match(third.lines.join("\n"), /Nothing is left to do/);
  }
  const named = await axolotl(
    ...(["axolotl.yaml", "--auto_resume_from_checkpoints", "false"] as const),
    ...["--output_dir", "new", "--resume_from_checkpoint", "true"],
  );
  assert.equal(named.code, 1);
  assert.match(named.stderr, /E_NO_CHECKPOINT.*nothing to resume from in new/);
  assert.match(named.stderr, /resume_from_checkpoint: auto/);
});

test("22: other rows under the same name are refused; the same rows elsewhere go on", async (t) => {
  const job = await caseJob(t, "22-changed-data-on-resume");
  const settings = {
    ...{ save_strategy: "steps", save_steps: 2, max_steps: 4, lr_scheduler_type: "constant" },
  };
  await cp(job.file("sums-before.jsonl"), job.file("sums.jsonl"));
  const whole = await train(job, { ...settings, output_dir: "whole", max_steps: 6 });
  assert.equal(whole.code, 0, whole.stderr);
  const first = await train(job, settings);
  assert.equal(first.code, 0, first.stderr);
  const resume = { ...settings, max_steps: 6, resume_from_checkpoint: true };
  await cp(job.file("sums-after.jsonl"), job.file("sums.jsonl"));
  const changed = await train(job, resume);
  assert.equal(changed.code, 1);
  assert.match(
    changed.stderr,
    /E_RESUME_MISMATCH.*checkpoint-4.*the training data had SHA-256 [0-9a-f]{12}.*the files hold something else/,
  );
  await mkdir(job.file("moved"));
  await rename(job.file("sums-before.jsonl"), job.file("moved/sums.jsonl"));
  const moved = await train(job, { ...resume, dataset: "moved/sums.jsonl" });
  assert.equal(moved.code, 0, moved.stderr);
  assert.equal(moved.of("step.completed")[0]?.step, 5);
  assert.equal(digestOf(moved), digestOf(whole));
});

test("28: the checkpoints are those of transformers' Trainer, the last step among them", async (t) => {
  const job = await caseJob(t, "28-last-step-checkpoint");
  const file = join(packageRoot, "tests/fixtures/trainer-checkpoints.json");
  const { cases } = JSON.parse(await readFile(file, "utf8")) as {
    cases: { settings: Record<string, unknown>; checkpoints: string[] }[];
  };
  assert.ok(cases.length >= 7);
  for (const [i, { settings, checkpoints: expected }] of cases.entries()) {
    const outcome = await train(job, { max_steps: -1, ...settings, output_dir: `out-${i}` });
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.deepEqual(await checkpoints(job, `out-${i}`), expected, JSON.stringify(settings));
  }
  const short = { output_dir: "default", save_strategy: "steps", max_steps: 3 };
  assert.equal((await train(job, short)).code, 0);
  // A longer run goes on from the end of the shorter one.
  const longer = await train(job, {
    ...{ ...short, max_steps: 5 },
    resume_from_checkpoint: true,
  });
  assert.equal(longer.code, 0, longer.stderr);
  assert.deepEqual(
    longer.of("step.completed").map(({ step }) => step),
    [4, 5],
  );
});
