import assert from "node:assert/strict";
import { test } from "node:test";
import { evaluationSize } from "#lib/core/format";
import { describedObjective } from "#lib/objectives/metrics";
import { jobMetrics } from "#lib/objectives/task-metrics";

test("an evaluation of several tasks counts what each of them is of", () => {
  const sizeOf = (...kinds: readonly string[]): string => {
    const [objective, ...others] = kinds.map((kind) => ({ kind }));
    assert.ok(objective !== undefined);
    const tasks = [objective, ...others].map((own, i) => ({
      ...{ name: `t${i}`, objective: own },
      ...{ sequenceLength: 8, batchFields: [] },
    }));
    const job = { objective, ...(others.length === 0 ? {} : { tasks }) };
    return evaluationSize(describedObjective(objective, jobMetrics(job)), 97);
  };
  assert.equal(sizeOf("dpo"), "97 pairs");
  assert.equal(sizeOf("dpo", "orpo"), "97 pairs");
  assert.equal(sizeOf("dpo", "causal_lm"), "97 pairs and tokens");
  assert.equal(sizeOf("causal_lm", "reward", "causal_lm"), "97 tokens and pairs");
});
