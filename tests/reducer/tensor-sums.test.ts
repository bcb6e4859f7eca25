import assert from "node:assert/strict";
import { test } from "node:test";
import { startShardThread } from "#coordinator/reducer/client";
import { ShardReducer } from "#coordinator/reducer/shard-reducer";
import { ShardGroup, type ShardSource } from "#coordinator/shards";
import { updatedShards } from "#coordinator/whole-sums";
import { keptMastersSha256 } from "#lib/core/masters-hash";
import { buildParameterLayout, shardRanges, wireOffsetBytes } from "#lib/core/parameter-layout";
import { readWireSpace } from "#lib/core/wire-space";
import { StepUpdate } from "#lib/optim/index";
import { BulkClient } from "#lib/wire/bulk-client";
import { testValues } from "#tests/support/compare";
import { OptimizerRun, optimizerOf } from "#tests/support/optimizer-runs";
import { grantOn, passOf, testLife } from "#tests/support/members";

/** Of several blocks, so that three shards have a part each. */
const layout = buildParameterLayout(
  [
    { name: "matrix", shape: [301, 999] },
    { name: "vector", shape: [1_000] },
  ],
  "bfloat16",
);
const optimizer = optimizerOf({ optim: "adafactor", optim_args: "scale_parameter=true" });
const settings = { optimizer, learningRateAt: () => 0.01, maxGradNorm: 1 };
const numSteps = 3;
const gradientOf = (step: number): Float32Array => testValues(layout.numElements, 7 + step);

test("shards in threads add up the same sums of tensors as one in this thread", async () => {
  const local = await OptimizerRun.start(layout, optimizer, settings);
  local.setMasters(testValues(layout.numElements, 1));
  for (let step = 0; step < numSteps; step++) await local.step(step, gradientOf(step));
  for (const numShards of [1, 3]) {
    const security = { joinToken: "secret" };
    const shards = await ShardGroup.start(startShardThread, {
      ...{
        numShards,
        layout,
        optimizer,
        gradientGroups: 1,
        security,
        listenHost: "127.0.0.1",
        life: testLife,
      },
    });
    const clients = shards
      .addresses()
      .map((address) => new BulkClient({ address, security, pass: passOf() }));
    try {
      const fill: ShardSource["fill"] = async ({ range, masters }) => {
        masters.set(testValues(layout.numElements, 1).subarray(range.start, range.end));
      };
      await shards.load({ fill }, 0);
      const updates = new StepUpdate(layout, settings);
      for (let step = 0; step < numSteps; step++) {
        await shards.openStep(step);
        await grantOn(shards, { id: 1, step, group: 0 });
        const wire = await readWireSpace(layout, async ({ start, end }, into) => {
          into.set(gradientOf(step).subarray(start, end));
        });
        for (const [i, { start, end }] of shardRanges(layout, numShards).entries()) {
          const part = wire.subarray(wireOffsetBytes(layout, start), wireOffsetBytes(layout, end));
          await clients[i]?.pushGradients({ step, group: 0, lease: 1 }, part);
        }
        await updates.run(
          updatedShards(shards, async () => assert.fail("no group is lost")),
          { step, loss: 0 },
        );
      }
      const { masters } = local.digests();
      assert.equal(
        await keptMastersSha256(layout, (await shards.hold(() => true)).snapshot),
        masters,
      );
      assert.deepEqual(updates.tensorStates, local.tensorStates);
    } finally {
      for (const client of clients) client.close();
      await shards.close();
    }
  }
});

test("a tensor's sums are of a step that is reduced", async () => {
  const reducer = await ShardReducer.create({
    ...{ shardIndex: 0, layout, optimizer, gradientGroups: 1 },
    range: { start: 0, end: layout.numElements },
  });
  reducer.openStep(0);
  const update = { learningRate: 1, updateNumber: 1, gradientScale: 1 };
  assert.throws(() => reducer.measure(0, { pass: 0, update }), {
    code: "E_SHARD_STATE",
    message: /measure step 0.*reduced.*in progress/,
  });
});
