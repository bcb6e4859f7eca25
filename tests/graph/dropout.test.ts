/** Masks of dropout: their random numbers, where they come from, and what backward makes of them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { type GraphNode, neededNodes } from "#lib/graph/builder";
import { randomBitsOp } from "#lib/graph/random-bits";
import {
  attention,
  type AttentionOptions,
  dropout,
  dropoutFactors,
  type DropoutSource,
} from "#lib/ops/index";
import { philoxWords } from "#lib/ops/philox";
import { testValues } from "#tests/support/compare";
import { compileFunction, traceFunction } from "#tests/support/compiled-function";
import {
  assertTracedIsEager,
  floatArg,
  intArg,
  type KernelCase,
  testKernels,
} from "#tests/support/kernel-case";

const seed = 0xffff_fff7;
const at = intArg([7, 3, 1], [3]);

const sourceAt = (coordinates: tf.Tensor, rate = 0.3, site = 5): DropoutSource => ({
  ...{ rate, coordinates, seed, site },
});

test("Philox4x32-10 gives the numbers of its authors' test vectors", () => {
  // kat_vectors of Random123.
  const hex = (words: Uint32Array): string =>
    [...words].map((word) => word.toString(16).padStart(8, "0")).join(" ");
  const ones = 0xffff_ffff;
  const vectors = [
    [[0, 0], [0, 0, 0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    [[ones, ones], [ones, ones, ones, ones], "408f276d 41c83b0e a20bc7c6 6d5451fd"],
    [
      [0xa409_3822, 0x299f_31d0],
      [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    ],
  ] as const;
  for (const [key, counter, words] of vectors) {
    assert.equal(hex(philoxWords(key, counter, 4)), words);
  }
  const [first, second] = [
    philoxWords([1, 2], [ones, 6, 7, 8], 8),
    philoxWords([1, 2], [0, 7, 7, 8], 4),
  ];
  assert.deepEqual(first.subarray(4), second, "a counter of 128 bits");
});

/** Attention over few tokens with dropout; segments where there are some. */
function attentionCase(
  name: string,
  options: Partial<AttentionOptions>,
  segments?: readonly number[],
): KernelCase {
  const head = (numHeads: number): number[] => [2, 6, numHeads, 4];
  return {
    name: `Attention with dropout, ${name}`,
    inputs: [head(4), head(2), head(2)],
    map: (value) => 2 * value,
    constants: [at, ...(segments === undefined ? [] : [intArg(segments, [2, 6])])],
    fn: (q, k, v, coordinates, s) =>
      attention(
        q as tf.Tensor,
        k as tf.Tensor,
        v as tf.Tensor,
        { scale: 0.5, causal: true, ...options },
        s,
        sourceAt(coordinates as tf.Tensor),
      ),
  };
}

const segments = [1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 2, 0];

testKernels([
  {
    name: "Dropout of an odd number of elements",
    inputs: [[3, 5]],
    constants: [at],
    fn: (x, c) => tf.square(dropout(x as tf.Tensor, sourceAt(c as tf.Tensor))),
  },
  attentionCase("causal", {}),
  attentionCase("bidirectional", { causal: false }),
  attentionCase("softcap, window and segments", { softcap: 1.5, window: 3 }, segments),
]);

const longTokens = 300;
for (const [name, options] of [
  ["causal", { causal: true }],
  ["causal with a window", { causal: true, window: 40 }],
  ["bidirectional", { causal: false }],
] as const) {
  test(`attention over several blocks with dropout, ${name}: traced = eager`, () => {
    assertTracedIsEager({
      name,
      inputs: [2, 1, 1].map((numHeads) => [1, longTokens, numHeads, 4]),
      constants: [at],
      fn: (q, k, v, c) => {
        const source = sourceAt(c as tf.Tensor);
        const heads = [q, k, v] as [tf.Tensor, tf.Tensor, tf.Tensor];
        const mixed = attention(...heads, { scale: 0.5, ...options }, undefined, source);
        // The case's sum has numbers of one sign: where they cancel, it would be rounding.
        const pattern = tf.tensor(testValues(mixed.size, 99), mixed.shape);
        return tf.mul(tf.add(mixed, tf.scalar(1)), pattern);
      },
    });
  });
}

test("a mask is another one for each coordinate, seed and place, and the same for the same", () => {
  const size = 256;
  const ones = { data: new Float32Array(size).fill(1), shape: [size] };
  const drawn = (coordinates: readonly number[], change: Partial<DropoutSource> = {}): string => {
    const run = compileFunction((x, c) =>
      dropout(x as tf.Tensor, { ...sourceAt(c as tf.Tensor, 0.5), ...change }),
    );
    const [result] = run(ones, intArg(coordinates, [3]));
    return [...(result?.data ?? [])].map((value) => (value === 0 ? "0" : "1")).join("");
  };
  const one = drawn([7, 3, 1]);
  assert.equal(drawn([7, 3, 1]), one);
  const all = [
    ...[one, drawn([8, 3, 1]), drawn([7, 4, 1]), drawn([7, 3, 2])],
    ...[drawn([7, 3, 1], { seed: 1 }), drawn([7, 3, 1], { site: 6 })],
  ];
  assert.equal(new Set(all).size, all.length);
  // Independent masks agree in half of their elements: within 5 standard errors of 8.
  for (const other of all.slice(1)) {
    const same = Array.from(one, (value, i) => value === other[i]).filter(Boolean).length;
    assert.ok(Math.abs(same - size / 2) < 40, `${same} of ${size} elements alike`);
  }
});

/** The mean of so many draws of one value's factor, and its standard error. */
function assertUnbiased(mean: number, numDraws: number, rate: number, what: string): void {
  const error = Math.sqrt(rate / (1 - rate) / numDraws);
  assert.ok(Math.abs(mean - 1) < 3 * error, `${what}: mean ${mean}, standard error ${error}`);
}

const numSeeds = 2_000;

test("over 2,000 seeds the mean of what is kept is the value itself, and neighbours are independent", () => {
  const size = 64;
  void tf.setBackend("cpu");
  for (const rate of [0.05, 0.1, 0.5, 0.9]) {
    let sum = 0;
    let products = 0;
    for (let each = 0; each < numSeeds; each++) {
      const factors = tf.tidy(() =>
        dropoutFactors(
          { rate, coordinates: tf.tensor1d([1, 0, 0], "int32"), seed: each, site: 0 },
          size,
        ),
      );
      factors.forEach((factor, i) => {
        sum += factor;
        products += factor * (factors[(i + 1) % size] as number);
      });
    }
    assertUnbiased(sum / (numSeeds * size), numSeeds * size, rate, `rate ${rate}`);
    // The variance of a product of two independent factors.
    const variance = 1 / (1 - rate) ** 2 - 1;
    const mean = products / (numSeeds * size);
    const error = Math.sqrt(variance / (numSeeds * size));
    assert.ok(Math.abs(mean - 1) < 4 * error, `rate ${rate}: neighbours' product ${mean}`);
  }
});

test("over 2,000 steps the mean of attention with dropout is attention without", () => {
  const shape = [1, 4, 1, 2];
  const inputs = [1, 2, 3].map((each) => floatArg(shape, each));
  const options = { scale: 1, causal: true };
  const [exact] = compileFunction((q, k, v) =>
    attention(q as tf.Tensor, k as tf.Tensor, v as tf.Tensor, options),
  )(...inputs);
  const run = compileFunction((q, k, v, c) =>
    attention(
      ...([q, k, v] as [tf.Tensor, tf.Tensor, tf.Tensor]),
      ...([options, undefined, sourceAt(c as tf.Tensor, 0.1)] as const),
    ),
  );
  const sums = new Float64Array(8);
  const squares = new Float64Array(8);
  for (let step = 0; step < numSeeds; step++) {
    const [result] = run(...inputs, intArg([step, 0, 0], [3]));
    result?.data.forEach((value, i) => {
      sums[i] = (sums[i] as number) + value;
      squares[i] = (squares[i] as number) + value ** 2;
    });
  }
  exact?.data.forEach((value, i) => {
    const mean = (sums[i] as number) / numSeeds;
    const variance = (squares[i] as number) / numSeeds - mean ** 2;
    const error = Math.sqrt(variance / numSeeds);
    assert.ok(Math.abs(mean - value) < 3 * error, `output ${i}: ${mean}, not ${value} (${error})`);
  });
});

test("backward makes masks again: it reads no bits of forward, and bits wait for what they drop", () => {
  const inputs = [floatArg([2, 8, 2, 4], 1), floatArg([2, 8, 1, 4], 2), floatArg([2, 8, 1, 4], 3)];
  const { program } = traceFunction(
    (q, k, v, c) => {
      const f = (...xs: tf.Tensor[]): tf.Scalar => {
        const [a, b, d] = xs as [tf.Tensor, tf.Tensor, tf.Tensor];
        const options = { scale: 0.5, causal: true };
        const mixed = attention(a, b, d, options, undefined, sourceAt(c as tf.Tensor, 0.3, 0));
        return tf.sum(tf.square(dropout(mixed, sourceAt(c as tf.Tensor, 0.3, 1))));
      };
      return tf.grads(f)([q as tf.Tensor, k as tf.Tensor, v as tf.Tensor]);
    },
    [...inputs, at],
    { compute: "float32" },
  );
  const live = [...neededNodes(Object.values(program.fetches).map(({ node }) => node))];
  const bits = live.filter(({ op }) => op === randomBitsOp);
  // One of each forward, one of each backward.
  assert.equal(bits.length, 4);
  assert.ok(bits.every(({ controlInputs }) => controlInputs.size === 1));
  const readers = (of: GraphNode): GraphNode[] =>
    live
      .filter(({ inputs: read }) => read.some(({ node }) => node === of))
      .flatMap((node) => (node.op === "Bitcast" ? readers(node) : [node]));
  const uses = bits.map((node) => new Set(readers(node)).size);
  // Attention's gradient drops probabilities and their gradient by one mask.
  assert.deepEqual(
    uses.toSorted((a, b) => a - b),
    [1, 1, 1, 2],
  );
});
