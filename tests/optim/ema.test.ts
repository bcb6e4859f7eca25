import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { OptimizerStateReader, writeOptimizerState } from "#lib/checkpoint/index";
import { mastersSha256 } from "#lib/core/masters-hash";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
  shardRanges,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import { readWireSpace } from "#lib/core/wire-space";
import {
  type ChosenOptimizer,
  emaSlot,
  openOptimizer,
  ShardArithmetic,
  shardsBytes,
} from "#lib/optim/index";
import { testValues } from "#tests/support/compare";

const layout = buildParameterLayout(
  [
    { name: "matrix", shape: [2, blockElements] },
    { name: "vector", shape: [1000] },
  ],
  "bfloat16",
);
const numSteps = 12;
const adamW = {
  name: "adamw",
  settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1 },
};
const sgd = {
  name: "sgd",
  settings: { momentum: 0, dampening: 0, nesterov: false, weightDecay: 0 },
};

async function shardsOf(
  optimizer: ChosenOptimizer,
  numShards: number,
  withThread = false,
  space: ParameterLayout = layout,
): Promise<readonly ShardArithmetic[]> {
  return Promise.all(
    shardRanges(space, numShards).map(async (range) => {
      const shard = await ShardArithmetic.create(space, range, optimizer, { withThread });
      shard.masters.set(testValues(space.numElements, 1).subarray(range.start, range.end));
      return shard;
    }),
  );
}

async function train(
  shards: readonly ShardArithmetic[],
  [from, to]: readonly [number, number],
  onStep: () => void = () => {},
): Promise<void> {
  for (let step = from; step < to; step++) {
    const gradient = testValues(layout.numElements, 100 + step);
    const wire = await readWireSpace(layout, async ({ start, end }, into) => {
      into.set(gradient.subarray(start, end));
    });
    for (const shard of shards) {
      const { start, end } = shard.range;
      const part = wire.subarray(wireOffsetBytes(layout, start), wireOffsetBytes(layout, end));
      shard.addLastGroup(part, true);
      shard.apply({ learningRate: 0.03 / (1 + step), updateNumber: step + 1, gradientScale: 0.5 });
    }
    onStep();
  }
  await Promise.all(shards.map(async (shard) => shard.close()));
}

const averageOf = ({ states }: ShardArithmetic): Float32Array => {
  const average = states[emaSlot];
  assert.ok(average !== undefined);
  return average;
};

/** Digests of the masters and of their average. */
const digests = (shards: readonly ShardArithmetic[]): readonly string[] => [
  mastersSha256(layout, shards),
  mastersSha256(
    layout,
    shards.map((shard) => ({ range: shard.range, masters: averageOf(shard) })),
  ),
];

for (const [optimizer, emaDecay] of [
  [adamW, 0.9],
  [adamW, 0.5],
  [sgd, 0.99],
] as const) {
  test(`the average is that of float64, and ${optimizer.name} is as without it (${emaDecay})`, async () => {
    const shards = await shardsOf({ ...optimizer, emaDecay }, 1);
    const [shard] = shards;
    assert.ok(shard !== undefined);
    let expected: Float64Array | undefined;
    const largest = new Float64Array(layout.numElements);
    await train(shards, [0, numSteps], () => {
      const { masters } = shard;
      expected =
        expected?.map((value, i) => value * emaDecay + (masters[i] as number) * (1 - emaDecay)) ??
        Float64Array.from(masters);
      averageOf(shard).forEach((value, i) => {
        const wanted = expected?.[i] as number;
        // Of an average that cancels, the largest part counts.
        const size = Math.max(largest[i] as number, Math.abs(masters[i] as number));
        largest[i] = size;
        if (Math.abs(value - wanted) > 1e-6 * size) assert.fail(`${i}: ${value}, not ${wanted}`);
      });
    });
    const plain = await shardsOf(optimizer, 1);
    await train(plain, [0, numSteps]);
    assert.equal(digests(shards)[0], mastersSha256(layout, plain));
    assert.notEqual(digests(shards)[0], digests(shards)[1]);
  });
}

test("1, 2 and 3 shards, of one thread or two, have the same average", async () => {
  const optimizer = { ...adamW, emaDecay: 0.9 };
  const whole = await shardsOf(optimizer, 1);
  await train(whole, [0, numSteps]);
  for (const [numShards, withThread] of [
    [1, true],
    [2, false],
    [3, true],
  ] as const) {
    const shards = await shardsOf(optimizer, numShards, withThread);
    await train(shards, [0, numSteps]);
    assert.deepEqual(digests(shards), digests(whole));
  }
});

test("a run that is resumed on other shards has the average of one that is not", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-ema-"));
  t.after(async () => rm(directory, { recursive: true }));
  const optimizer = { ...adamW, emaDecay: 0.9 };
  const whole = await shardsOf(optimizer, 1);
  await train(whole, [0, numSteps]);
  const before = await shardsOf(optimizer, 2);
  await train(before, [0, 5]);
  await writeOptimizerState(directory, before);
  const reader = await OptimizerStateReader.open(directory);
  t.after(async () => reader.close());
  const after = await shardsOf(optimizer, 3);
  for (const { range, masters, states } of after) {
    await reader.readMasters(range, masters);
    await reader.readStates(range, states);
  }
  await train(after, [5, numSteps]);
  assert.deepEqual(digests(after), digests(whole));
  const [without] = await shardsOf(adamW, 1);
  assert.ok(without !== undefined);
  await assert.rejects(reader.readStates(without.range, without.states), {
    code: "E_RESUME_MISMATCH",
  });
});

test("an average takes 4 bytes a weight, and none is kept unasked", () => {
  const optimizer = { ...adamW, emaDecay: 0.9 };
  const bytesOf = (chosen: ChosenOptimizer): number => shardsBytes(layout, openOptimizer(chosen));
  assert.equal(bytesOf(optimizer) - bytesOf(adamW), 4 * layout.numElements);
  assert.deepEqual(openOptimizer(adamW).slots, ["first_moment", "second_moment"]);
});

test("what waits for its first update is its own average until then", async () => {
  const regions = [1, 3].map((firstUpdate, i) => ({
    ...{ start: i * blockElements, end: (i + 1) * blockElements, dtype: "float32" as const },
    ...{ decays: false, rateMultiplier: 1, firstUpdate },
  }));
  const later: ParameterLayout = { tensors: [], numElements: 2 * blockElements, regions };
  const [shard] = await shardsOf({ ...adamW, emaDecay: 0.9 }, 1, false, later);
  assert.ok(shard !== undefined);
  for (const updateNumber of [1, 2]) {
    shard.addGroup(new Uint8Array(testValues(later.numElements, 5).buffer), true);
    shard.apply({ learningRate: 0.1, updateNumber, gradientScale: 1 });
    const waiting = (values: Float32Array): Float32Array => values.subarray(blockElements);
    assert.deepEqual(waiting(averageOf(shard)), waiting(shard.masters));
    const moving = averageOf(shard).subarray(0, blockElements);
    const isSame = moving.every((value, i) => value === shard.masters[i]);
    assert.equal(isSame, updateNumber === 1);
  }
});
