import assert from "node:assert/strict";
import { test } from "node:test";
import { startShardThread } from "#coordinator/reducer/client";
import { ShardGroup, type ShardSource } from "#coordinator/shards";
import { inMemory } from "#tests/support/kept-arrays";
import { testLife } from "#tests/support/members";
import { adamW, smallLayout } from "./gradients.js";

test("a group reads into its shards' own memory, and that memory is the final state", async () => {
  const layout = smallLayout(2, "bfloat16");
  const group = await ShardGroup.start(startShardThread, {
    ...{ numShards: 2, layout, gradientGroups: 1, listenHost: "127.0.0.1", security: {} },
    optimizer: adamW,
    life: testLife,
  });
  const filled: Float32Array[] = [];
  const fill: ShardSource["fill"] = async ({ range, masters, states }) => {
    masters.forEach((_, index) => {
      masters[index] = range.start + index;
    });
    states["first_moment"]?.fill(2);
    filled.push(masters);
  };
  await group.load({ fill }, 0);
  const final = await group.finalState();
  await group.close();
  assert.deepEqual(
    final.map(({ masters }) => masters),
    filled,
  );
  for (const [shard, { range, masters, states }] of final.entries()) {
    assert.equal(inMemory(masters).buffer, filled[shard]?.buffer, "no copy");
    assert.equal(inMemory(masters)[5], range.start + 5);
    assert.ok(inMemory(states["first_moment"]).every((value) => value === 2));
    assert.ok(inMemory(states["second_moment"]).every((value) => value === 0));
  }
});
