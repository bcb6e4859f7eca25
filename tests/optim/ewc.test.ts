import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { blockElements, buildParameterLayout, shardRanges } from "#lib/core/parameter-layout";
import { RandomStream } from "#lib/core/random";
import { anchorSlot, fisherSlot, penaltyOf } from "#lib/optim/ewc";
import { type ChosenOptimizer, finishFisher, ShardArithmetic } from "#lib/optim/index";

const shapes = [
  { name: "matrix", shape: [3, blockElements] },
  { name: "vector", shape: [1000] },
];
const layout = buildParameterLayout(shapes, "float32");
const optimizer: ChosenOptimizer = { name: "sgd", settings: {}, ewcLambda: 2 };
const { numElements } = layout;

/** Values where tensors lie, 0 between them, of a fixed stream. */
function values(seed: number, of: (uniform: number) => number): Float32Array {
  const random = new RandomStream(seed, "test", 0);
  const space = new Float32Array(numElements);
  for (const { offset, size } of layout.tensors) {
    for (let i = 0; i < size; i++) space[offset + i] = of(random.nextFloat64());
  }
  return space;
}

const start = values(1, (u) => u - 0.5);
const change = values(2, (u) => 0.1 * (u - 0.5));
const moved = start.map((value, i) => value + (change[i] ?? 0));
const squares = [3, 4, 5].map((seed) => values(seed, (u) => u * u));
const gradient = values(6, (u) => u - 0.5);

async function withShards<T>(
  numShards: number,
  withThread: boolean,
  use: (shards: readonly ShardArithmetic[]) => Promise<T>,
): Promise<T> {
  const shards: ShardArithmetic[] = [];
  try {
    for (const range of shardRanges(layout, numShards)) {
      const shard = await ShardArithmetic.create(layout, range, optimizer, { withThread });
      shard.masters.set(start.subarray(range.start, range.end));
      shards.push(shard);
    }
    return await use(shards);
  } finally {
    for (const shard of shards) await shard.close();
  }
}

const give = (shard: ShardArithmetic, space: Float32Array, first: boolean): void => {
  const bytes = space.slice(shard.range.start, shard.range.end);
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
  shared.set(new Uint8Array(bytes.buffer));
  shard.addGroup(shared, first);
};

const spaceOf = (
  shards: readonly ShardArithmetic[],
  of: (shard: ShardArithmetic) => Float32Array | undefined,
): Float32Array => {
  const space = new Float32Array(numElements);
  for (const shard of shards) space.set(of(shard) ?? [], shard.range.start);
  return space;
};

/** Two rounds, the first of two groups: F is of 3 rows. */
async function measure(
  shards: readonly ShardArithmetic[],
  normalises: boolean,
): Promise<{ readonly mean: number; readonly fisher: Float32Array }> {
  for (const shard of shards) {
    give(shard, squares[0] as Float32Array, true);
    give(shard, squares[1] as Float32Array, false);
    shard.keepSquares(true);
    give(shard, squares[2] as Float32Array, true);
    shard.keepSquares(false);
  }
  const mean = await finishFisher(
    {
      fisherSums: async () => shards.flatMap((shard) => [...shard.fisherSums()]),
      finishFisher: async (scale) => {
        for (const shard of shards) shard.finishFisher(scale);
      },
    },
    layout,
    { numRows: 3, normalises },
  );
  return { mean, fisher: spaceOf(shards, ({ states }) => states[fisherSlot]) };
}

/** The norm's squares and the penalty after a step's gradient at `moved`. */
function penalise(shards: readonly ShardArithmetic[]) {
  for (const shard of shards) {
    shard.masters.set(moved.subarray(shard.range.start, shard.range.end));
    give(shard, gradient, true);
  }
  const distances = shards.flatMap((shard) => [...shard.addPenalty(2)]);
  return {
    distances,
    squares: shards.flatMap((shard) => [...shard.blockSumsOfSquares()]),
    gradient: spaceOf(shards, ({ gradientSum }) => gradientSum),
  };
}

const f = Math.fround;

test("F is the mean of the squares, or that over its own mean; the anchor is where the weights were", async () => {
  await withShards(1, false, async (shards) => {
    const { mean, fisher } = await measure(shards, false);
    const expected = start.map((_, i) => {
      const [a = 0, b = 0, c = 0] = squares.map((space) => space[i] ?? 0);
      return f(f(f(a + b) + c) * f(1 / 3));
    });
    assert.deepEqual(fisher, expected);
    assert.deepEqual(
      spaceOf(shards, ({ states }) => states[anchorSlot]),
      start,
    );
    const count = 3 * blockElements + 1000;
    const sum = expected.reduce((total, value) => total + value, 0);
    assert.ok(Math.abs(mean - sum / count) < 1e-7 * mean);
  });
  await withShards(1, false, async (shards) => {
    const { fisher } = await measure(shards, true);
    const count = 3 * blockElements + 1000;
    const mean = fisher.reduce((total, value) => total + value, 0) / count;
    assert.ok(Math.abs(mean - 1) < 1e-6, String(mean));
  });
});

test("the penalty's gradient is added once, as the formula and finite differences have it", async () => {
  await withShards(1, false, async (shards) => {
    const { fisher } = await measure(shards, true);
    const made = penalise(shards);
    const expected = gradient.map((value, i) => {
      const distance = f((moved[i] ?? 0) - (start[i] ?? 0));
      return f(value + f(2 * f((fisher[i] ?? 0) * distance)));
    });
    assert.deepEqual(made.gradient, expected);
    // In float64: the derivative of lambda / 2 * sum F (theta - theta0)^2.
    const penaltyAt = (weights: Float64Array): number =>
      weights.reduce((sum, w, i) => sum + (fisher[i] ?? 0) * (w - (start[i] ?? 0)) ** 2, 0);
    const here = Float64Array.from(moved);
    assert.ok(Math.abs(penaltyOf(2, made.distances) - penaltyAt(here)) < 1e-6 * penaltyAt(here));
    for (const element of [0, 77, blockElements + 5, 3 * blockElements + 999]) {
      const epsilon = 1e-3;
      const [up, down] = [1, -1].map((sign) => {
        const shifted = here.slice();
        shifted[element] = (shifted[element] ?? 0) + sign * epsilon;
        return penaltyAt(shifted);
      });
      const numeric = ((up ?? 0) - (down ?? 0)) / (2 * epsilon);
      const added = (made.gradient[element] ?? 0) - (gradient[element] ?? 0);
      assert.ok(Math.abs(added - numeric) < 1e-4 * Math.max(1, Math.abs(numeric)), `${element}`);
    }
  });
});

test("any number of shards and threads has the same bits", async () => {
  const all = await Promise.all(
    (
      [
        [1, false],
        [1, true],
        [2, true],
        [3, false],
      ] as const
    ).map(async ([numShards, withThread]) =>
      withShards(numShards, withThread, async (shards) => {
        const measured = await measure(shards, true);
        return { ...measured, ...penalise(shards) };
      }),
    ),
  );
  for (const other of all.slice(1)) assert.deepEqual(other, all[0]);
});

test("squares that are not finite, or all 0, are refused", async () => {
  for (const [sum, reason] of [
    [Number.POSITIVE_INFINITY, /not finite/],
    [Number.NaN, /not finite/],
    [0, /all of their gradients are 0/],
    // float32 has no number by which these have the mean 1.
    [1e-36, /, \d\.\d{3}e-\d+, is nearly 0/],
  ] as const) {
    const shards = { fisherSums: async () => [1, sum].slice(1), finishFisher: async () => {} };
    await assert.rejects(
      finishFisher(shards, layout, { numRows: 2, normalises: true }),
      (error) =>
        isLockstepError(error) && error.code === "E_FISHER_UNUSABLE" && reason.test(error.message),
    );
  }
});
