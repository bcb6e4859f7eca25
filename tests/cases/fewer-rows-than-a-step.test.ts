import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { caseError, prepareCase } from "#tests/support/case-run";
import { targetsOf } from "#tests/support/batches";

let job: CaseJob;
before(async () => {
  job = await createCaseJob("11-fewer-rows-than-a-step");
});
after(() => job.remove());

for (const data of ["one.jsonl", "five.jsonl"]) {
  test(`${data}: a short step an epoch; one process, one and two workers end with the same weights`, async () => {
    // Eight micro-batches of one row in four groups: with one row, three groups are padding.
    const settings = {
      ...{ per_device_train_batch_size: 1, global_batch_size: 8, gradient_groups: 4 },
      model_name_or_path: job.modelDirectory,
      dataset: job.file(data),
    };
    const run = async (command: string, workers: number) => {
      const output_dir = job.file(`${data}-${command}-${workers}`);
      const file = await job.writeJob({ ...settings, workers, output_dir }, `${command}.yaml`);
      const flags = command === "train" ? ["--json-logs"] : [];
      const outcome = await job.lockstep([command, file, ...flags]);
      assert.equal(outcome.code, 0, outcome.stderr);
      return outcome;
    };
    const local = await run("train-local", 1);
    const expected = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
    assert.ok(expected !== undefined);
    // The Trainer makes max(len(dataloader) // accumulation, 1) = 1 update an epoch, 3 in all.
    assert.equal(local.lines.filter((line) => /^step \d+\/3 /.test(line)).length, 3);
    for (const workers of [1, 2]) {
      const cluster = await run("train", workers);
      assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected, `${workers} workers`);
      assert.equal(cluster.of("step.completed").length, 3);
    }
  });
}

test("the case's own batch makes one step of its rows, divided by their tokens", async () => {
  for (const [data, numRows] of [
    ["one.jsonl", 1],
    ["five.jsonl", 5],
  ] as const) {
    const run = await prepareCase(job, data);
    const { plan } = run;
    assert.deepEqual([plan.stepsPerEpoch, plan.totalSteps, plan.rowsIn(0)], [1, 3, numRows]);
    const targets = plan.microBatches(0, 0).flatMap((batch) => [...targetsOf(batch)]);
    assert.equal(targets.filter((target) => target >= 0).length, plan.lossWeight(0));
    await run.close();
  }
});

test("a text shorter than a row makes a short one, on the validation side too", async () => {
  await writeFile(job.file("short.txt"), "A text of two lines,\nand no more.\n");
  const run = await prepareCase(job, "short.txt", { validation_split: 0.3 });
  const { data, plan } = run;
  const { trainReport, validationReport } = data;
  assert.deepEqual([trainReport.numRows, validationReport?.numRows], [1, 1]);
  assert.equal(trainReport.droppedTokens, 0);
  assert.equal(plan.lossWeight(0), trainReport.numTokens - 1);
  await run.close();
});

test("equal rows leave nothing to validate, and the reason is told", async () => {
  const row = '{"prompt": "a ", "completion": "b"}\n';
  await writeFile(job.file("equal.jsonl"), row.repeat(4));
  const run = await prepareCase(job, "equal.jsonl", { validation_split: 0.5 });
  assert.match(
    (run.started.dataLines ?? []).join("\n"),
    /nothing is kept .*: all 4 rows are equal/,
  );
  await run.close();
  assert.match(
    await caseError(job, "equal.jsonl", { validation_split: 0.5, eval_strategy: "epoch" }),
    /^E_CONFIG_CONFLICT: .*all 4 rows are equal/,
  );
});
