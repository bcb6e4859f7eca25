import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { type Argument, compileFunction } from "#lib/graph/function";
import { causalAttention, linearCrossEntropy, rmsNorm, rotary, swiGlu } from "#lib/ops/index";
import { assertClose, testValues } from "#tests/support/compare";

/** One differentiable use of a kernel: `inputs` are differentiated, `constants` are not. */
interface Case {
  readonly name: string;
  readonly inputs: readonly (readonly number[])[];
  readonly constants?: readonly Argument[];
  /** Moves inputs into the domain of the op. */
  readonly map?: (value: number) => number;
  readonly fn: (...args: tf.Tensor[]) => tf.Tensor;
}

const intArg = (values: readonly number[], shape: readonly number[]): Argument => ({
  data: Int32Array.from(values),
  shape,
});
const floatArg = (shape: readonly number[], seed: number): Argument => ({
  data: testValues(
    shape.reduce((a, b) => a * b, 1),
    seed,
  ),
  shape,
});

const positive = (value: number): number => Math.abs(value) + 0.5;
const x23: readonly (readonly number[])[] = [[2, 3]];
const unaryCase = (name: string, fn: (x: tf.Tensor) => tf.Tensor, map?: Case["map"]): Case => ({
  name,
  inputs: x23,
  fn: (x) => fn(x as tf.Tensor),
  ...(map === undefined ? {} : { map }),
});

const cases: readonly Case[] = [
  {
    name: "Add with broadcast",
    inputs: [[2, 3], [3]],
    fn: (a, b) => tf.add(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "Sub",
    inputs: [
      [2, 3],
      [2, 1],
    ],
    fn: (a, b) => tf.sub(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "Multiply",
    inputs: [
      [2, 3],
      [1, 3],
    ],
    fn: (a, b) => tf.mul(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "RealDiv",
    inputs: [[2, 3], [3]],
    map: positive,
    fn: (a, b) => tf.div(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "Pow",
    inputs: [[2, 3], [3]],
    map: positive,
    fn: (a, b) => tf.pow(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "Maximum",
    inputs: [
      [2, 3],
      [2, 3],
    ],
    fn: (a, b) => tf.maximum(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "Minimum",
    inputs: [
      [2, 3],
      [2, 3],
    ],
    fn: (a, b) => tf.minimum(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "SquaredDifference",
    inputs: [
      [2, 3],
      [2, 3],
    ],
    fn: (a, b) => tf.squaredDifference(a as tf.Tensor, b as tf.Tensor),
  },
  {
    name: "AddN",
    inputs: [
      [2, 3],
      [2, 3],
      [2, 3],
    ],
    fn: (a, b, c) => tf.addN([a as tf.Tensor, b as tf.Tensor, c as tf.Tensor]),
  },
  unaryCase("Neg", tf.neg),
  unaryCase("Abs", tf.abs),
  unaryCase("Relu", tf.relu),
  unaryCase("Square", tf.square),
  unaryCase("Exp", tf.exp),
  unaryCase("Expm1", tf.expm1),
  unaryCase("Log", tf.log, positive),
  unaryCase("Log1p", tf.log1p, positive),
  unaryCase("Sqrt", tf.sqrt, positive),
  unaryCase("Rsqrt", tf.rsqrt, positive),
  unaryCase("Sigmoid", tf.sigmoid),
  unaryCase("Tanh", tf.tanh),
  unaryCase("Erf", tf.erf),
  unaryCase("Sin", tf.sin),
  unaryCase("Cos", tf.cos),
  unaryCase("Softplus", tf.softplus),
  unaryCase("Reciprocal", tf.reciprocal, positive),
  {
    name: "Select",
    inputs: [
      [2, 3],
      [2, 3],
    ],
    constants: [floatArg([2, 3], 5)],
    fn: (a, b, c) =>
      tf.where(tf.greater(c as tf.Tensor, tf.scalar(0)), tf.square(a as tf.Tensor), b as tf.Tensor),
  },
  unaryCase("Cast", (x) => tf.mul(tf.cast(x, "float32"), x)),
  unaryCase("Reshape", (x) => tf.square(tf.reshape(x, [3, -1]))),
  unaryCase("ExpandDims", (x) => tf.square(tf.expandDims(x, 1))),
  {
    name: "Transpose",
    inputs: [[2, 3, 4]],
    fn: (x) => tf.square(tf.transpose(x as tf.Tensor, [2, 0, 1])),
  },
  unaryCase("Slice", (x) => tf.square(tf.slice(x, [0, 1], [2, -1]))),
  {
    name: "Concat",
    inputs: [
      [2, 3],
      [2, 2],
    ],
    fn: (a, b) => tf.square(tf.concat([a as tf.Tensor, b as tf.Tensor], 1)),
  },
  {
    name: "Pack",
    inputs: [
      [2, 3],
      [2, 3],
    ],
    fn: (a, b) => tf.square(tf.stack([a as tf.Tensor, b as tf.Tensor], 1)),
  },
  {
    name: "Unpack",
    inputs: [[2, 3]],
    fn: (x) =>
      tf.mul(
        tf.unstack(x as tf.Tensor, 1)[0] as tf.Tensor,
        tf.unstack(x as tf.Tensor, 1)[2] as tf.Tensor,
      ),
  },
  {
    name: "SplitV",
    inputs: [[2, 6]],
    fn: (x) => {
      const [a, b] = tf.split(x as tf.Tensor, 2, 1);
      return tf.mul(a as tf.Tensor, b as tf.Tensor);
    },
  },
  unaryCase("Tile", (x) => tf.square(tf.tile(x, [2, 1]))),
  {
    name: "BroadcastTo",
    inputs: [[1, 3]],
    fn: (x) => tf.square(tf.broadcastTo(x as tf.Tensor, [4, 3])),
  },
  unaryCase("PadV2", (x) =>
    tf.square(
      tf.pad(
        x,
        [
          [1, 0],
          [0, 2],
        ],
        0.5,
      ),
    ),
  ),
  {
    name: "GatherV2",
    inputs: [[4, 3]],
    constants: [intArg([3, 0, 3], [3])],
    fn: (x, ids) => tf.square(tf.gather(x as tf.Tensor, ids as tf.Tensor1D)),
  },
  {
    name: "UnsortedSegmentSum",
    inputs: [[4, 3]],
    constants: [intArg([1, 0, 1, 2], [4])],
    fn: (x, ids) => tf.square(tf.unsortedSegmentSum(x as tf.Tensor, ids as tf.Tensor1D, 3)),
  },
  unaryCase("Sum", (x) => tf.square(tf.sum(x, 1))),
  unaryCase("Sum with kept dims", (x) => tf.mul(tf.sum(x, 0, true), x)),
  unaryCase("Mean", (x) => tf.square(tf.mean(x, -1, true))),
  unaryCase("Max", (x) => tf.square(tf.max(x, 1))),
  unaryCase("Min", (x) => tf.square(tf.min(x, 1))),
  unaryCase("Softmax", (x) => tf.softmax(x)),
  unaryCase("LogSoftmax", (x) => tf.logSoftmax(x)),
  ...[false, true].flatMap((ta) =>
    [false, true].map(
      (tb): Case => ({
        name: `BatchMatMul ${ta} ${tb}`,
        inputs: [ta ? [3, 2] : [2, 3], tb ? [4, 3] : [3, 4]],
        fn: (a, b) => tf.matMul(a as tf.Tensor, b as tf.Tensor, ta, tb),
      }),
    ),
  ),
  {
    name: "BatchMatMul of rank 3",
    inputs: [
      [2, 2, 3],
      [2, 4, 3],
    ],
    fn: (a, b) => tf.matMul(a as tf.Tensor, b as tf.Tensor, false, true),
  },
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
    name: "CausalAttention",
    inputs: [
      [2, 5, 4, 4],
      [2, 5, 2, 4],
      [2, 5, 2, 4],
    ],
    fn: (q, k, v) => causalAttention(q as tf.Tensor, k as tf.Tensor, v as tf.Tensor, 0.5),
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
];

/** sum(fn(inputs) * a fixed pattern): a scalar whose gradient sees every output apart. */
function weighted(testCase: Case): (...args: tf.Tensor[]) => tf.Tensor {
  return (...args) => {
    const y = testCase.fn(...args);
    const pattern = testValues(y.size, 99);
    return tf.sum(tf.mul(y, tf.tensor(pattern, y.shape)));
  };
}

function valueAndGradients(testCase: Case): (...args: tf.Tensor[]) => tf.Tensor[] {
  const f = weighted(testCase);
  return (...args) => {
    const inputs = args.slice(0, testCase.inputs.length);
    const constants = args.slice(testCase.inputs.length);
    const gradients = tf.grads((...xs: tf.Tensor[]) => f(...xs, ...constants) as tf.Scalar)(inputs);
    return [f(...args), ...gradients];
  };
}

function argumentsOf(testCase: Case): Argument[] {
  const inputs = testCase.inputs.map((shape, index) => {
    const arg = floatArg(shape, index + 1);
    return testCase.map === undefined
      ? arg
      : { ...arg, data: (arg.data as Float32Array).map(testCase.map) };
  });
  return [...inputs, ...(testCase.constants ?? [])];
}

function eager(
  fn: (...args: tf.Tensor[]) => tf.Tensor[],
  args: readonly Argument[],
): Float32Array[] {
  void tf.setBackend("cpu");
  return tf.tidy(() => {
    const tensors = args.map((arg) =>
      tf.tensor(arg.data, [...arg.shape], arg.data instanceof Int32Array ? "int32" : "float32"),
    );
    return fn(...tensors).map((tensor) => tensor.dataSync() as Float32Array);
  });
}

for (const testCase of cases) {
  test(`${testCase.name}: traced = eager, value and gradients`, () => {
    const args = argumentsOf(testCase);
    const fn = valueAndGradients(testCase);
    const expected = eager(fn, args);
    const actual = compileFunction(fn)(...args);
    assert.equal(actual.length, testCase.inputs.length + 1);
    expected.forEach((values, index) =>
      assertClose(
        (actual[index] as { data: Float32Array }).data,
        values,
        2e-6,
        index === 0 ? "value" : `gradient ${index}`,
      ),
    );
  });

  test(`${testCase.name}: gradient = central difference`, () => {
    const args = argumentsOf(testCase);
    const gradients = compileFunction(valueAndGradients(testCase))(...args).slice(1);
    const value = compileFunction(weighted(testCase));
    const step = 1e-2;
    gradients.forEach((gradient, input) => {
      const base = args[input] as Argument;
      const numeric = Float64Array.from(base.data, (_, element) => {
        const at = (delta: number): number => {
          const data = (base.data as Float32Array).slice();
          data[element] = (data[element] as number) + delta;
          const moved = args.map((arg, index) => (index === input ? { ...arg, data } : arg));
          return (value(...moved)[0] as { data: Float32Array }).data[0] as number;
        };
        return (at(step) - at(-step)) / (2 * step);
      });
      assertClose((gradient as { data: Float32Array }).data, numeric, 5e-3, `input ${input}`);
    });
  });
}
