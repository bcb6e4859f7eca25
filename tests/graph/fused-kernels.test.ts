import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import {
  addBias,
  attention,
  type AttentionOptions,
  gelu,
  layerNorm,
  linearCrossEntropy,
  linearTokenLosses,
  magnitudeScale,
  multiLabelLoss,
  rmsNorm,
  rotary,
  scaleColumns,
  singleLabelLoss,
  squaredErrorLoss,
  swiGlu,
} from "#lib/ops/index";
import {
  assertTracedIsEager,
  floatArg,
  intArg,
  type KernelCase,
  testKernels,
} from "#tests/support/kernel-case";

const cases: readonly KernelCase[] = [
  {
    name: "RmsNorm",
    inputs: [[2, 3, 8], [8]],
    fn: (x, w) => rmsNorm(x as tf.Tensor, w as tf.Tensor, 1e-5),
  },
  {
    name: "SwiGlu",
    inputs: [
      [2, 3, 8],
      [2, 3, 8],
    ],
    fn: (g, u) => swiGlu(g as tf.Tensor, u as tf.Tensor),
  },
  {
    name: "Rotary",
    inputs: [[2, 3, 2, 4]],
    constants: [floatArg([3, 2], 7), floatArg([3, 2], 8)],
    fn: (x, c, s) => rotary(x as tf.Tensor, c as tf.Tensor, s as tf.Tensor),
  },
  {
    name: "Rotary of a part of the width, positions by row",
    inputs: [[2, 3, 2, 6]],
    constants: [floatArg([2, 3, 2], 7), floatArg([2, 3, 2], 8)],
    fn: (x, c, s) => rotary(x as tf.Tensor, c as tf.Tensor, s as tf.Tensor),
  },
  {
    name: "Attention, causal",
    inputs: [
      [2, 5, 4, 4],
      [2, 5, 2, 4],
      [2, 5, 2, 4],
    ],
    fn: (q, k, v) =>
      attention(q as tf.Tensor, k as tf.Tensor, v as tf.Tensor, { scale: 0.5, causal: true }),
  },
  {
    name: "LinearCrossEntropy",
    inputs: [
      [5, 4],
      [7, 4],
    ],
    constants: [intArg([3, -100, 0, 6, 2], [5])],
    fn: (h, w, t) => linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D),
  },
  {
    name: "LinearCrossEntropy with a softcap",
    inputs: [
      [5, 4],
      [7, 4],
    ],
    constants: [intArg([3, -100, 0, 6, 2], [5])],
    fn: (h, w, t) =>
      linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, { softcap: 1.5 }),
  },
  {
    name: "LinearCrossEntropy of smoothed targets",
    inputs: [
      [5, 4],
      [7, 4],
    ],
    constants: [intArg([3, -100, 0, 6, 2], [5])],
    fn: (h, w, t) =>
      linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, {
        labelSmoothing: 0.2,
      }),
  },
  {
    name: "LinearCrossEntropy of smoothed targets with a softcap",
    inputs: [
      [5, 4],
      [7, 4],
    ],
    constants: [intArg([3, -100, 0, 6, 2], [5])],
    fn: (h, w, t) =>
      linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, {
        ...{ softcap: 1.5, labelSmoothing: 0.1 },
      }),
  },
  ...[
    { name: "with a z-loss", options: { zLossWeight: 0.05 } },
    {
      name: "with a z-loss of capped logits and smoothed targets",
      options: { zLossWeight: 0.3, softcap: 1.5, labelSmoothing: 0.1 },
    },
  ].flatMap(({ name, options }): KernelCase[] => {
    const [hidden, table, targets] = [[5, 4], [7, 4], intArg([3, -100, 0, 6, 2], [5])] as const;
    return [
      {
        name: `LinearCrossEntropy ${name}`,
        inputs: [hidden, table],
        constants: [targets],
        fn: (h, w, t) =>
          linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, options),
      },
      {
        name: `LinearCrossEntropy of weighted rows ${name}`,
        inputs: [hidden, table],
        constants: [targets, { data: Float32Array.from([0.5, -100, 2.25, 0, 1]), shape: [5] }],
        fn: (h, w, t, weights) =>
          linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, {
            ...options,
            weights: weights as tf.Tensor1D,
          }),
      },
    ];
  }),
  {
    name: "LinearCrossEntropy of weighted rows",
    inputs: [
      [5, 4],
      [7, 4],
    ],
    constants: [
      intArg([3, -100, 0, 6, 2], [5]),
      { data: Float32Array.from([0.5, 3, 2.25, 0, 1]), shape: [5] },
    ],
    fn: (h, w, t, weights) =>
      linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, {
        weights: weights as tf.Tensor1D,
      }),
  },
  ...[{}, { softcap: 1.5, labelSmoothing: 0.1, zLossWeight: 0.2 }].map(
    (options): KernelCase => ({
      name: `LinearTokenLosses ${JSON.stringify(options)}`,
      inputs: [[5, 4], [7, 4], [5]],
      constants: [intArg([3, -100, 0, 6, 2], [5])],
      fn: (h, w, rows, t) =>
        tf.mul(
          linearTokenLosses(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, options),
          rows as tf.Tensor,
        ),
    }),
  ),
  {
    name: "A table read by its rows and used in a product",
    inputs: [[5, 4]],
    constants: [intArg([1, 3, 1, 4], [4])],
    fn: (w, ids) => {
      const rows = tf.gather(w as tf.Tensor2D, ids as tf.Tensor1D) as tf.Tensor2D;
      return tf.matMul(rows, w as tf.Tensor2D, false, true);
    },
  },
  {
    name: "LayerNorm",
    inputs: [[2, 3, 8], [8], [8]],
    fn: (x, w, b) => layerNorm(x as tf.Tensor, w as tf.Tensor, b as tf.Tensor, 1e-5),
  },
  ...(["erf", "tanh", "quick"] as const).map(
    (form): KernelCase => ({
      name: `Gelu ${form}`,
      inputs: [[3, 5]],
      map: (value) => 3 * value,
      fn: (x) => gelu(x as tf.Tensor, form),
    }),
  ),
  {
    name: "Gelu behind a bias",
    inputs: [[3, 5], [5]],
    map: (value) => 2 * value,
    fn: (x, b) => gelu(addBias(x as tf.Tensor, b as tf.Tensor), "tanh"),
  },
  {
    name: "AddBias",
    inputs: [[2, 3, 4], [4]],
    fn: (x, b) => tf.square(addBias(x as tf.Tensor, b as tf.Tensor)),
  },
  {
    name: "ScaleColumns",
    inputs: [[2, 3, 4], [4]],
    fn: (x, s) => tf.square(scaleColumns(x as tf.Tensor, s as tf.Tensor)),
  },
  ...[false, true].map(
    (isInputMajor): KernelCase => ({
      name: `DirectionNorm of a weight that lies as [${isInputMajor ? "in, out" : "out, in"}]`,
      inputs: [[4]],
      constants: [
        floatArg(isInputMajor ? [5, 4] : [4, 5], 3),
        floatArg([2, 5], 4),
        floatArg([4, 2], 5),
      ],
      fn: (m, weight, a, b) =>
        magnitudeScale(m as tf.Tensor, {
          ...{ weight: weight as tf.Tensor, isInputMajor, scale: 1.5 },
          ...{ a_RK: a as tf.Tensor, b_NR: b as tf.Tensor },
        }),
    }),
  ),
  {
    name: "singleLabelLoss",
    inputs: [[4, 3]],
    constants: [intArg([2, 0, -100, 1], [4])],
    fn: (x, t) => singleLabelLoss(x as tf.Tensor2D, t as tf.Tensor1D),
  },
  {
    name: "singleLabelLoss of smoothed and weighted classes",
    inputs: [[4, 3]],
    constants: [intArg([2, 0, -100, 1], [4])],
    fn: (x, t) =>
      singleLabelLoss(x as tf.Tensor2D, t as tf.Tensor1D, {
        ...{ classWeights: [0.5, 2, 3], labelSmoothing: 0.3 },
      }),
  },
  ...[undefined, [0.5, 2, 3]].map(
    (classWeights): KernelCase => ({
      name: `singleLabelLoss with a z-loss${classWeights === undefined ? "" : " of weighted classes"}`,
      inputs: [[4, 3]],
      constants: [intArg([2, 0, -100, 1], [4])],
      fn: (x, t) =>
        singleLabelLoss(x as tf.Tensor2D, t as tf.Tensor1D, {
          ...{ classWeights, labelSmoothing: 0.3, zLossWeight: 0.2 },
        }),
    }),
  ),
  {
    name: "multiLabelLoss of weighted classes",
    inputs: [[4, 3]],
    map: (value) => 4 * value,
    constants: [floatArg([4, 3], 5)],
    fn: (x, t) =>
      multiLabelLoss(x as tf.Tensor2D, tf.abs(t as tf.Tensor2D), { positiveWeights: [0.5, 2, 3] }),
  },
  {
    name: "multiLabelLoss",
    inputs: [[4, 3]],
    map: (value) => 4 * value,
    constants: [floatArg([4, 3], 5)],
    fn: (x, t) => multiLabelLoss(x as tf.Tensor2D, tf.abs(t as tf.Tensor2D)),
  },
  {
    name: "squaredErrorLoss",
    inputs: [[4, 3]],
    constants: [floatArg([4, 3], 5), intArg([1, 1, -100, 1], [4, 1])],
    fn: (x, t, c) => squaredErrorLoss(x as tf.Tensor2D, t as tf.Tensor2D, c as tf.Tensor2D),
  },
];

const head = (numTokens: number, numHeads: number): readonly number[] => [
  2,
  numTokens,
  numHeads,
  4,
];

/** Attention over the few tokens of these cases, and one with more tokens than a block has queries. */
function attentionCase(
  name: string,
  options: Partial<AttentionOptions>,
  segments?: readonly number[],
): KernelCase {
  const numTokens = 6;
  return {
    name: `Attention, ${name}`,
    inputs: [head(numTokens, 4), head(numTokens, 2), head(numTokens, 2)],
    map: (value) => 2 * value,
    ...(segments === undefined ? {} : { constants: [intArg(segments, [2, numTokens])] }),
    fn: (q, k, v, s) =>
      attention(
        q as tf.Tensor,
        k as tf.Tensor,
        v as tf.Tensor,
        { scale: 0.5, causal: true, ...options },
        s,
      ),
  };
}

/** Two packed rows: segments of 3 and 3, and 2, 3 and one of padding. */
const segments = [1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 2, 0];

testKernels(cases);
testKernels([
  attentionCase("bidirectional", { causal: false }),
  attentionCase("causal with a window", { window: 2 }),
  attentionCase("bidirectional with a window", { causal: false, window: 2 }),
  attentionCase("causal with a softcap", { softcap: 0.7 }),
  attentionCase("causal with segments", {}, segments),
  attentionCase("bidirectional with segments", { causal: false }, segments),
  attentionCase("window, softcap and segments", { window: 3, softcap: 1.5 }, segments),
]);

/** Above the queries of a block, so that blocks skip keys. */
const longTokens = 300;
for (const [name, options] of [
  ["causal", { causal: true }],
  ["causal with a window", { causal: true, window: 40 }],
  ["causal with a wide window", { causal: true, window: 200, softcap: 2 }],
  ["bidirectional", { causal: false }],
  ["bidirectional with a window", { causal: false, window: 40 }],
] as const) {
  test(`attention over several blocks, ${name}: traced = eager, value and gradients`, () => {
    assertTracedIsEager({
      name,
      inputs: [
        [1, longTokens, 2, 4],
        [1, longTokens, 1, 4],
        [1, longTokens, 1, 4],
      ],
      constants: [
        intArg(
          Array.from({ length: longTokens }, (_, i) => (i < 150 ? 1 : 2)),
          [1, longTokens],
        ),
      ],
      fn: (q, k, v, s) =>
        attention(
          q as tf.Tensor,
          k as tf.Tensor,
          v as tf.Tensor,
          { scale: 0.5, ...options },
          s as tf.Tensor,
        ),
    });
  });
}
