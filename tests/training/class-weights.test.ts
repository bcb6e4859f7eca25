import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createTinyClassifier, type TinyClassifier } from "#tests/support/tiny-classifier";

// Losses whose weights are no whole numbers and whose targets are smoothed: the same bits whoever computes.

let job: TinyClassifier;
before(async () => {
  job = await createTinyClassifier("bert", {
    settings: { max_steps: 6, lr_scheduler_type: "constant" },
  });
});
after(() => job.remove());

const run = (command: "train" | "train-local", name: string, ...args: string[]) =>
  runJob(job, command, name, ["--global-batch-size", "8", "--gradient-groups", "2", ...args]);

const weighted = ["--class-weights", "{about law: 0.3, about peace: 1.7, about people: 5.1}"];
const smoothed = ["--label-smoothing-factor", "0.1"];

test("weighted and smoothed classes: one process and two workers end with the same weights", async () => {
  const plain = await run("train-local", "plain");
  const local = await run("train-local", "local", ...weighted, ...smoothed);
  const expected = mastersOf(local);
  assert.notEqual(expected, mastersOf(plain));
  assert.notEqual(expected, mastersOf(await run("train-local", "unsmoothed", ...weighted)));
  const said = local.lines.join("\n");
  assert.match(said, /by its class: about law 0\.3, about peace 1\.7, about people 5\.1/);
  assert.match(said, /label_smoothing_factor 0\.1 smooths, in evaluations too/);
  for (const numWorkers of ["1", "2"]) {
    const cluster = await run(
      ...(["train", `workers-${numWorkers}`, "--workers", numWorkers] as const),
      ...[...weighted, ...smoothed],
    );
    assert.equal(mastersOf(cluster), expected);
    assert.equal(cluster.of("run.started")[0]?.objective.unit, "weighted row");
    const { weight = 0, loss = 0 } = cluster.of("evaluation.completed")[0] ?? {};
    assert.ok(!Number.isInteger(weight) && loss > 0, `${weight}`);
  }
  // The same rows in classes of 20 each: balanced weights are 1, or nearly so.
  const balanced = await run("train-local", "balanced", "--class-weights", "balanced");
  assert.equal(balanced.code, 0, balanced.stderr);
  assert.match(balanced.lines.join("\n"), /by its class: about law [01]\.?\d*, about peace [01]/);
});

test("a resumed run with other weights or smoothing is refused, and with the same goes on", async () => {
  const name = ["train", "resumed", "--save-strategy", "steps"] as const;
  const first = await run(...name, "--save-steps", "3", "--max-steps", "3", ...weighted);
  assert.equal(first.code, 0, first.stderr);
  const again = [...name, "--save-steps", "3", "--resume-from-checkpoint", "auto"] as const;
  const other = await run(...again, "--class-weights", "balanced");
  assert.match(other.stderr, /class_weights was .*about law.* and is now \\*"balanced/);
  const smoother = await run(...again, ...weighted, ...smoothed);
  assert.match(smoother.stderr, /label_smoothing_factor was null and is now 0\.1/);
  const resumed = await run(...again, ...weighted);
  assert.equal(mastersOf(resumed), mastersOf(await run("train", "uninterrupted", ...weighted)));
});

test("weights of other classes, and keys without a meaning for what is learnt, are refused by name", async () => {
  const refused = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await run("train-local", "no", ...args);
    assert.notEqual(code, 0);
    return stderr;
  };
  assert.match(
    await refused("--class-weights", "{about law: 2, about peace: 1}"),
    /E_CONFIG_INVALID.*class_weights.*none for "about people"/s,
  );
  assert.match(
    await refused("--class-weights", "{about law: 2, about peace: 1, about people: 1, spam: 1}"),
    /E_CONFIG_INVALID.*one for "spam"/s,
  );
  const texts = ["--dataset-format", "text", "--class-weights", "balanced"];
  assert.match(
    await refused(...texts),
    /E_CONFIG_CONFLICT.*class_weights and objective.*causal_lm/s,
  );
});
