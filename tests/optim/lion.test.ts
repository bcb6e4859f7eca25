import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertSteps,
  freshRun,
  optimizerOf,
  readGolden,
  testShardsAndResume,
} from "#tests/support/optimizer-runs";

/** Written by tests/reference/make_lion_fixture.py. */
const golden = readGolden<{ readonly config: object }>("lion");

for (const { config, after } of golden.cases) {
  test(`ten steps of Lion are the paper's (${JSON.stringify(config)})`, async () => {
    const optimizer = optimizerOf({ optim: "lion_32bit", ...config });
    const run = await assertSteps(golden, after, optimizer, { matrix: [2, 4], vector: [8] });
    assert.deepEqual(Object.keys(run.shards[0]?.states ?? {}), ["momentum"]);
  });
}

testShardsAndResume("Lion", optimizerOf({ optim: "paged_lion_32bit", weight_decay: 0.1 }));

test("where momentum and gradient cancel, Lion moves nothing", async () => {
  const run = await freshRun(optimizerOf({ optim: "lion_32bit" }));
  const [shard] = run.shards;
  assert.ok(shard !== undefined);
  shard.masters.fill(0.5);
  await run.step(0, new Float32Array(shard.masters.length));
  assert.ok(shard.masters.every((master) => master === 0.5));
});
