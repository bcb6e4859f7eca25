import assert from "node:assert/strict";
import { test } from "node:test";
import { EvaluationWork } from "#coordinator/inference-work";
import { LeaseTable } from "#coordinator/leases";

const batch = (...classes: number[]) => ({
  numRows: classes.length,
  tokens: new Int32Array(2 * classes.length),
  targets: Int32Array.from(classes.flatMap((label) => [label, -100])),
});

test("a classifier is scored over all batches; a result without its rows' classes is refused", async () => {
  let nextId = 1;
  const leases = new LeaseTable({
    ...{ numItems: 2, leaseTimeoutMs: 100, now: () => 0 },
    nextLeaseId: () => nextId++,
  });
  const batches = [batch(0, 1), batch(1, -100)];
  const work = new EvaluationWork({ batches, version: 0, numClasses: 2, leases });
  const [first, second] = [leases.take("a"), leases.take("b")];
  assert.ok(first !== undefined && second !== undefined);
  const result = (nllSum: number, ...predictions: number[]) => ({
    kind: "losses" as const,
    sums: [{ nllSum, numTokens: 1, predictions: Int32Array.from(predictions) }],
  });
  for (const predictions of [[], [0], [0, 2], [0, -1]]) {
    assert.throws(() => work.accept(first, result(1, ...predictions)), {
      code: "E_MESSAGE_INVALID",
    });
  }
  work.accept(second, result(0.5, 0, 0));
  work.accept(first, result(1, 0, 1));
  const { nllSum, numTokens, scores } = await work.completed;
  assert.deepEqual({ nllSum, numTokens }, { nllSum: 1.5, numTokens: 2 });
  assert.deepEqual(scores, { accuracy: 2 / 3, macroF1: 2 / 3 });
});
