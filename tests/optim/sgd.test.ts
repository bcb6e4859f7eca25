import assert from "node:assert/strict";
import { test } from "node:test";
import { openOptimizer } from "#lib/optim/index";
import {
  assertSteps,
  freshRun,
  optimizerOf,
  readGolden,
  savedState,
  testShardsAndResume,
} from "#tests/support/optimizer-runs";

/** Written by tests/reference/make_sgd_fixture.py. */
const golden = readGolden<
  { readonly weight_decay: number } & Readonly<
    Record<"momentum" | "dampening" | "nesterov", number | boolean | undefined>
  >
>("sgd");

const sgd = (weightDecay: number, args: string | null) =>
  optimizerOf({ optim: "sgd", optim_args: args, weight_decay: weightDecay });

for (const { weight_decay: weightDecay, after, ...args } of golden.cases) {
  const text = Object.entries(args)
    .map(([name, value]) => `${name}=${String(value)}`)
    .join(",");
  test(`ten steps of SGD are torch's (weight_decay ${weightDecay}${text && `, ${text}`})`, async () => {
    const optimizer = sgd(weightDecay, text || null);
    const run = await assertSteps(golden, after, optimizer, { matrix: [1, 8], vector: [8] });
    const slots = "momentum" in args ? ["momentum_buffer"] : [];
    assert.deepEqual(Object.keys(run.shards[0]?.states ?? {}), slots);
  });
}

for (const args of [null, "momentum=0.9,dampening=0.1", "momentum=0.9,nesterov=True"]) {
  testShardsAndResume(args ?? "plain", sgd(0.1, args));
}

test("AdamW's checkpoint is no checkpoint of SGD, nor one with momentum one without", async (t) => {
  const withMomentum = sgd(0, "momentum=0.9");
  assert.deepEqual(openOptimizer(withMomentum).slots, ["momentum_buffer"]);
  const reader = await savedState(t, await freshRun(withMomentum));
  for (const other of [sgd(0, null), optimizerOf({ optim: "adamw_torch" })]) {
    const [shard] = (await freshRun(other)).shards;
    assert.ok(shard !== undefined);
    await assert.rejects(reader.readStates(shard.range, shard.states), {
      code: "E_RESUME_MISMATCH",
    });
  }
});
