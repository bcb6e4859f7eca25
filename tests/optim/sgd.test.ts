import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { OptimizerStateReader, writeOptimizerState } from "#lib/checkpoint/index";
import { chosenOptimizer } from "#lib/config/index";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
  shardRanges,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { mastersSha256 } from "#lib/core/masters-hash";
import { readWireSpace } from "#lib/core/wire-space";
import { type ChosenOptimizer, openOptimizer, ShardArithmetic } from "#lib/optim/index";
import { testValues } from "#tests/support/compare";

interface Tensors {
  readonly matrix: readonly number[];
  readonly vector: readonly number[];
}

/** Written by tests/reference/make_sgd_fixture.py. */
const golden = JSON.parse(readFileSync("tests/fixtures/golden/sgd.json", "utf8")) as {
  readonly learning_rates: readonly number[];
  readonly start: Tensors;
  readonly gradients: readonly Tensors[];
  readonly cases: readonly ({
    readonly weight_decay: number;
    readonly after: readonly Tensors[];
  } & Readonly<Record<"momentum" | "dampening" | "nesterov", number | boolean | undefined>>)[];
};

function sgd(weightDecay: number, args: string | null): ChosenOptimizer {
  const unread = { adam_beta1: 0.9, adam_beta2: 0.999, adam_epsilon: 1e-8 };
  return chosenOptimizer({ optim: "sgd", optim_args: args, weight_decay: weightDecay, ...unread });
}

for (const { weight_decay: weightDecay, after, ...args } of golden.cases) {
  const text = Object.entries(args)
    .map(([name, value]) => `${name}=${String(value)}`)
    .join(",");
  test(`ten steps of SGD are torch's (weight_decay ${weightDecay}${text && `, ${text}`})`, async () => {
    const optimizer = sgd(weightDecay, text || null);
    const tensors = [
      { name: "matrix", shape: [1, 8] },
      { name: "vector", shape: [8] },
    ];
    const layout = buildParameterLayout(tensors, "float32");
    const range = { start: 0, end: layout.numElements };
    const shard = await ShardArithmetic.create(layout, range, optimizer);
    const put = (values: Tensors, into: Float32Array): void => {
      into.set(values.matrix, 0);
      into.set(values.vector, blockElements);
    };
    put(golden.start, shard.masters);
    golden.gradients.forEach((gradient, step) => {
      const wire = new Float32Array(layout.numElements);
      put(gradient, wire);
      shard.addGroup(new Uint8Array(wire.buffer), true);
      const learningRate = golden.learning_rates[step] as number;
      shard.apply({ learningRate, updateNumber: step + 1, gradientScale: 1 });
      const expected = after[step] as Tensors;
      for (const [name, start] of [
        ["matrix", 0],
        ["vector", blockElements],
      ] as const) {
        expected[name].forEach((value, i) => {
          const got = shard.masters[start + i] as number;
          assert.ok(Math.abs(got - value) <= 1e-6 * Math.abs(value), `${name}[${i}]: ${got}`);
        });
      }
    });
    const momentum = "momentum" in args;
    assert.deepEqual(Object.keys(shard.states), momentum ? ["momentum_buffer"] : []);
  });
}

const layout = buildParameterLayout(
  [
    { name: "matrix", shape: [2, blockElements] },
    { name: "vector", shape: [1000] },
  ],
  "bfloat16",
);
const numSteps = 6;

async function shardsOf(optimizer: ChosenOptimizer, numShards: number, withThread: boolean) {
  return Promise.all(
    shardRanges(layout, numShards).map(async (range) => {
      const shard = await ShardArithmetic.create(layout, range, optimizer, { withThread });
      shard.masters.set(testValues(layout.numElements, 1).subarray(range.start, range.end));
      return shard;
    }),
  );
}

/** Steps `from` to `to`; the digest of masters, states and what is published at the end. */
async function train(
  shards: readonly ShardArithmetic[],
  [from, to]: readonly [number, number],
): Promise<readonly string[]> {
  for (let step = from; step < to; step++) {
    const gradient = testValues(layout.numElements, 100 + step);
    const wire = await readWireSpace(layout, async ({ start, end }, into) => {
      into.set(gradient.subarray(start, end));
    });
    assert.equal(wire.length, wireSizeBytes(layout));
    for (const shard of shards) {
      shard.addLastGroup(partOf(layout, wire, shard), true);
      shard.apply({ learningRate: 0.01 / (1 + step), updateNumber: step + 1, gradientScale: 0.5 });
    }
  }
  const slots = Object.keys(shards[0]?.states ?? {});
  const wholes = slots.map((slot) =>
    shards.map(({ range, states }) => ({ range, masters: states[slot] ?? new Float32Array() })),
  );
  const published = Buffer.concat(shards.map((shard) => shard.publish()));
  await Promise.all(shards.map(async (shard) => shard.close()));
  return [
    mastersSha256(layout, shards),
    ...wholes.map((pieces) => mastersSha256(layout, pieces)),
    published.toString("base64"),
  ];
}

const partOf = (space: ParameterLayout, wire: Uint8Array, { range }: ShardArithmetic) =>
  wire.subarray(wireOffsetBytes(space, range.start), wireOffsetBytes(space, range.end));

for (const args of [null, "momentum=0.9,dampening=0.1", "momentum=0.9,nesterov=True"]) {
  const optimizer = sgd(0.1, args);

  test(`1, 2 and 3 shards, of one thread or two, have the same bits (${args ?? "plain"})`, async () => {
    const expected = await train(await shardsOf(optimizer, 1, false), [0, numSteps]);
    for (const [numShards, withThread] of [
      [1, true],
      [2, false],
      [3, true],
    ] as const) {
      const shards = await shardsOf(optimizer, numShards, withThread);
      assert.deepEqual(await train(shards, [0, numSteps]), expected);
    }
  });

  test(`a run that is resumed ends like one that is not (${args ?? "plain"})`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "lockstep-sgd-"));
    t.after(async () => rm(directory, { recursive: true }));
    const expected = await train(await shardsOf(optimizer, 1, false), [0, numSteps]);
    const before = await shardsOf(optimizer, 2, false);
    await train(before, [0, 3]);
    await writeOptimizerState(directory, before);
    const reader = await OptimizerStateReader.open(directory);
    t.after(async () => reader.close());
    const after = await shardsOf(optimizer, 3, false);
    for (const { range, masters, states } of after) {
      await reader.readMasters(range, masters);
      await reader.readStates(range, states);
    }
    assert.deepEqual(await train(after, [3, numSteps]), expected);
  });
}

test("AdamW's checkpoint is no checkpoint of SGD, nor one with momentum one without", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-sgd-"));
  t.after(async () => rm(directory, { recursive: true }));
  const withMomentum = sgd(0, "momentum=0.9");
  assert.deepEqual(openOptimizer(withMomentum).slots, ["momentum_buffer"]);
  await writeOptimizerState(directory, await shardsOf(withMomentum, 1, false));
  const reader = await OptimizerStateReader.open(directory);
  t.after(async () => reader.close());
  const [plain] = await shardsOf(sgd(0, null), 1, false);
  const [adamW] = await shardsOf({ name: "adamw", settings: {} }, 1, false);
  for (const shard of [plain, adamW]) {
    assert.ok(shard !== undefined);
    await assert.rejects(reader.readStates(shard.range, shard.states), {
      code: "E_RESUME_MISMATCH",
    });
  }
});
