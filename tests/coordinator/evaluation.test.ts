import assert from "node:assert/strict";
import { test } from "node:test";
import { EvaluationWork } from "#coordinator/inference-work";
import { LeaseTable } from "#coordinator/leases";
import { calmJury } from "./jury.js";

const job = {
  objective: { kind: "single_label_classification", numLabels: 2 },
  ...{ batchFields: [], sequenceLength: 2 },
};
const batch = (...classes: number[]) => ({
  numRows: classes.length,
  fields: { tokens: new Int32Array(2 * classes.length), label: Int32Array.from(classes) },
});

test("a classifier is scored over all batches; a result without its rows' classes is refused", async () => {
  let nextId = 1;
  const leases = new LeaseTable({
    ...{ numItems: 2, leaseTimeoutMs: 100, now: () => 0 },
    nextLeaseId: () => nextId++,
  });
  const batches = [batch(0, 1), batch(1, -100)];
  const jury = calmJury("a", "b");
  const work = new EvaluationWork({ step: 0, jury, batches, version: 0, job, leases });
  const [first, second] = [leases.take("a"), leases.take("b")];
  assert.ok(first !== undefined && second !== undefined);
  const result = (lossSum: number, weight: number, ...predictions: number[]) => ({
    kind: "losses" as const,
    sums: [{ lossSum, weight, outputs: Int32Array.from(predictions) }],
  });
  for (const predictions of [[], [0], [0, 2], [0, -1]]) {
    assert.throws(() => work.accept(first, result(1, 2, ...predictions)), {
      code: "E_MESSAGE_INVALID",
    });
  }
  // The row of padding does not count.
  assert.throws(() => work.accept(second, result(0.5, 2, 0, 0)), /weight 2, and the rows weigh 1/);
  work.accept(second, result(0.5, 1, 0, 0));
  work.accept(first, result(1, 2, 0, 1));
  const [evaluated] = await work.completed;
  assert.ok(evaluated !== undefined);
  const { lossSum, weight, scores } = evaluated;
  assert.deepEqual({ lossSum, weight }, { lossSum: 1.5, weight: 3 });
  assert.deepEqual(scores, { accuracy: 2 / 3, macro_f1: 2 / 3 });
});

test("an evaluation on which nobody is left to decide ends when the last who could has gone", async () => {
  let nextId = 1;
  const leases = new LeaseTable({
    ...{ numItems: 1, leaseTimeoutMs: 100, now: () => 0 },
    nextLeaseId: () => nextId++,
  });
  let present = ["a", "b"];
  const jury = {
    ...calmJury(),
    present: () => present,
    isVerified: () => true,
    onDivided: () => {},
  };
  const batches = [batch(0, 1)];
  const work = new EvaluationWork({ step: 3, jury, batches, version: 0, job, leases });
  const take = (worker: string) => leases.take(worker, (item) => work.mayTake(item, worker));
  for (const [worker, lossSum] of [
    ["a", 1],
    ["b", 2],
    ["a", 1],
  ] as const) {
    const lease = take(worker);
    assert.ok(lease !== undefined, `${worker} may compute it`);
    const sums = [{ lossSum, weight: 2, outputs: Int32Array.from([0, 1]) }];
    work.accept(lease, { kind: "losses", sums });
  }
  assert.equal(take("a"), undefined);
  present = ["a"];
  work.membersChanged();
  await assert.rejects(work.completed, { code: "E_GROUP_DIVERGED" });
});
