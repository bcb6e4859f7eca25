import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import type { WireDtype } from "#lib/core/dtype";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
  regionAt,
  shardRanges,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import {
  type ChosenOptimizer,
  maxMemoryBytes,
  memoryMap,
  openOptimizer,
  ShardArithmetic,
  shardsNeeded,
} from "#lib/optim/index";
import {
  adamWElement,
  bfloat16Bits,
  bfloat16Value,
  float16Bits,
  float16Value,
  sumOfSquares,
} from "./oracle.js";

const adamW: ChosenOptimizer = {
  name: "adamw",
  settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1 },
};
const opened = openOptimizer(adamW);

function stateOf({ states }: ShardArithmetic, slot: string): Float32Array {
  const state = states[slot];
  assert.ok(state !== undefined, `no ${slot}`);
  return state;
}

const identity = (value: number): number => value;
const layoutOf = (numMatrixBlocks: number, numVectorBlocks: number, dtype: WireDtype) =>
  buildParameterLayout(
    [
      { name: "matrix", shape: [numMatrixBlocks, blockElements] },
      { name: "vector", shape: [numVectorBlocks * blockElements] },
    ],
    dtype,
  );

/** Numbers of every magnitude from a 32-bit linear congruential generator. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state;
  };
}

function randomFloats(n: number, seed: number, scale: number): Float32Array {
  const next = generator(seed);
  return Float32Array.from({ length: n }, () => (next() / 2 ** 31 - 1) * scale);
}

/** The half types: bits of a float32's bits, and what they stand for. */
const halves = {
  bfloat16: { bitsOf: bfloat16Bits, valueOf: bfloat16Value },
  float16: { bitsOf: float16Bits, valueOf: float16Value },
} as const;

/** A gradient of the whole space in wire form, and the float32 values that it stands for. */
function randomGradient(layout: ParameterLayout, seed: number) {
  const values = randomFloats(layout.numElements, seed, 0.1);
  const bytes = new Uint8Array(wireSizeBytes(layout));
  const words = new Uint32Array(values.buffer);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < layout.numElements; i++) {
    const { dtype } = regionAt(layout, i);
    if (dtype === "bfloat16" || dtype === "float16") {
      const bits = halves[dtype].bitsOf(words[i] as number);
      view.setUint16(wireOffsetBytes(layout, i), bits, true);
      values[i] = halves[dtype].valueOf(bits);
    } else view.setFloat32(wireOffsetBytes(layout, i), values[i] as number, true);
  }
  return { bytes, values };
}

function assertSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  const bits = (values: Float32Array) =>
    new Uint32Array(values.buffer, values.byteOffset, values.length);
  const [a, b] = [bits(actual), bits(expected)];
  assert.equal(a.length, b.length);
  const at = a.findIndex((word, i) => word !== b[i]);
  assert.ok(at < 0, `${what}: element ${at} is ${actual[at]}, expected ${expected[at]}`);
}

const golden = JSON.parse(readFileSync("tests/fixtures/golden/adamw_f64.json", "utf8")) as {
  p0: number[];
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  steps: { grad: number[]; param: number[] }[];
};

test("the scalar formula in float64 equals torch to the last bit", () => {
  golden.p0.forEach((p0, i) => {
    let state = { p: p0, m: 0, v: 0 };
    golden.steps.forEach(({ grad, param }, index) => {
      const step = {
        learningRate: golden.lr,
        beta1: golden.betas[0],
        beta2: golden.betas[1],
        epsilon: golden.eps,
        weightDecay: golden.weight_decay,
        updateNumber: index + 1,
      };
      state = adamWElement(state, grad[i] as number, step, identity);
      assert.equal(state.p, param[i]);
    });
  });
});

test("the kernel follows torch's float64 trajectory to float32 accuracy", async () => {
  const layout = layoutOf(1, 1, "float32");
  const shard = await ShardArithmetic.create(
    layout,
    { start: 0, end: layout.numElements },
    {
      name: "adamw",
      settings: {
        beta1: golden.betas[0],
        beta2: golden.betas[1],
        epsilon: golden.eps,
        weightDecay: golden.weight_decay,
      },
    },
  );
  shard.masters.set(golden.p0);
  golden.steps.forEach(({ grad, param }, index) => {
    const wire = new Float32Array(layout.numElements);
    wire.set(grad);
    shard.addGroup(new Uint8Array(wire.buffer), true);
    shard.apply({ learningRate: golden.lr, updateNumber: index + 1, gradientScale: 1 });
    param.forEach((expected, i) => {
      assert.ok(Math.abs((shard.masters[i] as number) - expected) < 2e-6 * Math.abs(expected));
    });
  });
});

for (const dtype of ["bfloat16", "float16", "float32"] as const) {
  test(`three groups and three updates equal the scalar float32 oracle bit for bit (${dtype} wire)`, async () => {
    const layout = layoutOf(2, 1, dtype);
    const n = layout.numElements;
    const shard = await ShardArithmetic.create(layout, { start: 0, end: n }, adamW);
    const start = randomFloats(n, 1, 1);
    shard.masters.set(start);
    const state = Array.from(start, (p) => ({ p, m: 0, v: 0 }));
    for (let updateNumber = 1; updateNumber <= 3; updateNumber++) {
      const groups = [0, 1, 2].map((g) => randomGradient(layout, updateNumber * 10 + g));
      shard.addGroup((groups[0] as { bytes: Uint8Array }).bytes, true);
      shard.addGroup((groups[1] as { bytes: Uint8Array }).bytes, false);
      const blockSums = shard.addLastGroup((groups[2] as { bytes: Uint8Array }).bytes, false);

      const sum = new Float32Array(n);
      groups.forEach(({ values }, g) => {
        for (let i = 0; i < n; i++) {
          sum[i] = g === 0 ? (values[i] as number) : (sum[i] as number) + (values[i] as number);
        }
      });
      assertSameBits(shard.gradientSum, sum, "sum");
      const expectedSums = Float64Array.from({ length: n / blockElements }, (_, block) =>
        sumOfSquares(sum.subarray(block * blockElements, (block + 1) * blockElements)),
      );
      assert.deepEqual(blockSums, expectedSums);
      assert.deepEqual(shard.blockSumsOfSquares(), expectedSums);

      const gradientScale = Math.fround(0.37);
      const step = { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, updateNumber };
      shard.apply({ learningRate: 1e-3, updateNumber, gradientScale });
      const expected = { p: new Float32Array(n), m: new Float32Array(n), v: new Float32Array(n) };
      state.forEach((element, i) => {
        const gradient = Math.fround((sum[i] as number) * gradientScale);
        // Only matrices decay.
        const weightDecay = regionAt(layout, i).decays ? 0.1 : 0;
        const next = adamWElement(element, gradient, { ...step, weightDecay }, Math.fround);
        Object.assign(element, next);
        expected.p[i] = next.p;
        expected.m[i] = next.m;
        expected.v[i] = next.v;
      });
      assertSameBits(shard.masters, expected.p, "masters");
      assertSameBits(stateOf(shard, "first_moment"), expected.m, "first moment");
      assertSameBits(stateOf(shard, "second_moment"), expected.v, "second moment");
      assertPublishedFormOf(shard.publish(), expected.p, layout);
    }
  });
}

function assertPublishedFormOf(bytes: Uint8Array, masters: Float32Array, layout: ParameterLayout) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const words = new Uint32Array(masters.buffer, masters.byteOffset, masters.length);
  words.forEach((word, i) => {
    const at = wireOffsetBytes(layout, i);
    const { dtype } = regionAt(layout, i);
    if (dtype === "bfloat16" || dtype === "float16") {
      const expected = halves[dtype].bitsOf(word);
      if (view.getUint16(at, true) !== expected) assert.fail(`element ${i}: ${word}`);
    } else if (view.getUint32(at, true) !== word) assert.fail(`element ${i}: ${word}`);
  });
}

test("bfloat16 rounding equals the oracle for every upper half with every telling lower half", async () => {
  const lowerHalves = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
  const layout = layoutOf(lowerHalves.length, 1, "bfloat16");
  const shard = await ShardArithmetic.create(layout, { start: 0, end: layout.numElements }, adamW);
  const words = new Uint32Array(
    shard.masters.buffer,
    shard.masters.byteOffset,
    shard.masters.length,
  );
  lowerHalves.forEach((lower, k) => {
    for (let upper = 0; upper < 65_536; upper++) {
      words[k * blockElements + upper] = upper * 65_536 + lower;
    }
  });
  const published = shard.publish();
  const found = new Uint16Array(published.buffer, published.byteOffset, layout.regions[0]?.end);
  found.forEach((half, i) => {
    const word = words[i] as number;
    if (half !== bfloat16Bits(word)) assert.fail(`${word.toString(16)} -> ${half.toString(16)}`);
    const isNan = (half & 0x7fff) > 0x7f80;
    if (isNan !== Number.isNaN(shard.masters[i])) assert.fail(`NaN of ${word.toString(16)}`);
  });
});

test("a published version stays as it was until the second publication after it", async () => {
  const layout = layoutOf(1, 1, "bfloat16");
  const shard = await ShardArithmetic.create(layout, { start: 0, end: layout.numElements }, adamW);
  shard.masters.fill(1);
  const first = shard.publish();
  const copy = first.slice();
  shard.masters.fill(2);
  const second = shard.publish();
  assert.deepEqual(first, copy);
  assert.notDeepEqual(second, copy);
  shard.masters.fill(1);
  assert.deepEqual(shard.publish(), copy);
  assert.notEqual(shard.publish().byteOffset, first.byteOffset, "two buffers take turns");
});

test("any number of shards, of one thread or two, gives the same sums of squares, masters and published bytes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 2 }),
      fc.integer({ min: 1, max: 6 }),
      fc.constantFrom<WireDtype>("bfloat16", "float16", "float32"),
      fc.boolean(),
      fc.nat(),
      async (numMatrixBlocks, numVectorBlocks, numShards, dtype, withThread, seed) => {
        const layout = layoutOf(numMatrixBlocks, numVectorBlocks, dtype);
        const groups = [randomGradient(layout, seed), randomGradient(layout, seed + 1)].map(
          ({ bytes }) => {
            const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
            shared.set(bytes);
            return shared;
          },
        );
        const masters = randomFloats(layout.numElements, seed + 2, 1);
        const outcome = async (shards: number, withThread: boolean) => {
          const parts = await Promise.all(
            shardRanges(layout, shards).map(async (range) => {
              const shard = await ShardArithmetic.create(layout, range, adamW, { withThread });
              shard.masters.set(masters.subarray(range.start, range.end));
              const [from, to] = [range.start, range.end].map((e) => wireOffsetBytes(layout, e));
              const [first, last] = groups.map((bytes) => bytes.subarray(from, to));
              shard.addGroup(first as Uint8Array, true);
              const blockSums = shard.addLastGroup(last as Uint8Array, false);
              assert.deepEqual(shard.blockSumsOfSquares(), blockSums);
              shard.apply({ learningRate: 1e-3, updateNumber: 1, gradientScale: 0.5 });
              const published = shard.publish();
              await shard.close();
              return { blockSums, masters: shard.masters, published };
            }),
          );
          return {
            blockSums: parts.flatMap((part) => [...part.blockSums]),
            masters: Buffer.concat(
              parts.map(({ masters: m }) => Buffer.from(m.buffer, m.byteOffset, m.byteLength)),
            ),
            published: Buffer.concat(parts.map((part) => part.published)),
          };
        };
        const one = await outcome(1, false);
        const many = await outcome(numShards, withThread);
        assert.deepEqual(many.blockSums, one.blockSums);
        assert.ok(many.masters.equals(one.masters), "masters");
        assert.ok(many.published.equals(one.published), "published bytes");
      },
    ),
    { numRuns: 12 },
  );
});

test("a non-finite gradient shows in its block's sum of squares only", async () => {
  const layout = layoutOf(2, 1, "bfloat16");
  const shard = await ShardArithmetic.create(layout, { start: 0, end: layout.numElements }, adamW);
  for (const bits of [0x7f80, 0xff80, 0x7fc0, 0x7f81]) {
    const { bytes } = randomGradient(layout, bits);
    new DataView(bytes.buffer).setUint16((blockElements + 5) * 2, bits, true);
    const sums = shard.addLastGroup(bytes, true);
    assert.deepEqual([...sums].map(Number.isFinite), [true, false, true]);
  }
});

test("a range beyond one wasm memory is refused with the number of shards that fit", () => {
  const layout = layoutOf(16_384, 1, "bfloat16");
  const whole = { start: 0, end: layout.numElements };
  const needed = shardsNeeded(layout, opened);
  assert.throws(
    () => memoryMap(layout, whole, opened),
    (error: { code?: string; details?: { shardsNeeded?: number } }) =>
      error.code === "E_SHARD_TOO_LARGE" && error.details?.shardsNeeded === needed,
  );
  const totals = (shards: number) =>
    shardRanges(layout, shards).map((range) => {
      const numBytes = wireOffsetBytes(layout, range.end) - wireOffsetBytes(layout, range.start);
      return (range.end - range.start) * 16 + numBytes * 2;
    });
  assert.ok(Math.max(...totals(needed - 1)) > maxMemoryBytes - 1_000_000);
  for (const range of shardRanges(layout, needed)) {
    const { totalBytes } = memoryMap(layout, range, opened);
    assert.ok(totalBytes <= maxMemoryBytes);
    assert.ok(totalBytes < (range.end - range.start) * 20.1, "20 bytes a parameter");
  }
});

test("each region has its rate, its decay and its own count of updates, and is published meanwhile", async () => {
  const regionsOf = [
    { dtype: "bfloat16", decays: true, rateMultiplier: 0.5, firstUpdate: 1 },
    { dtype: "float32", decays: false, rateMultiplier: 1, firstUpdate: 3 },
    { dtype: "bfloat16", decays: false, rateMultiplier: 4, firstUpdate: 2 },
  ] as const;
  const regions = regionsOf.map((region, i) => ({
    ...{ start: i * blockElements, end: (i + 1) * blockElements },
    ...region,
  }));
  const layout = { tensors: [], numElements: 3 * blockElements, regions };
  const n = layout.numElements;
  // One thread has the first region and the other one the rest.
  const shard = await ShardArithmetic.create(layout, { start: 0, end: n }, adamW, {
    withThread: true,
  });
  const start = randomFloats(n, 3, 1);
  shard.masters.set(start);
  const state = Array.from(start, (p) => ({ p, m: 0, v: 0 }));
  for (let updateNumber = 1; updateNumber <= 3; updateNumber++) {
    const { bytes, values } = randomGradient(layout, updateNumber);
    shard.addGroup(bytes, true);
    shard.apply({ learningRate: 1e-3, updateNumber, gradientScale: 0.5 });
    for (const { start: first, end, decays, rateMultiplier, firstUpdate } of regions) {
      const step = {
        ...{ beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: decays ? 0.1 : 0 },
        learningRate: 1e-3 * rateMultiplier,
        updateNumber: updateNumber - firstUpdate + 1,
      };
      for (let i = first; i < end && step.updateNumber >= 1; i++) {
        const gradient = Math.fround((values[i] as number) * 0.5);
        const element = state[i] ?? { p: 0, m: 0, v: 0 };
        state[i] = adamWElement(element, gradient, step, Math.fround);
      }
    }
    const masters = Float32Array.from(state, ({ p }) => p);
    assertSameBits(shard.masters, masters, "masters");
    assertPublishedFormOf(shard.publish(), masters, layout);
  }
  await shard.close();
});
