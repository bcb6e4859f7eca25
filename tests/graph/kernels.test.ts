import * as tf from "@tensorflow/tfjs-core";
import { floatArg, intArg, type KernelCase, testKernels } from "#tests/support/kernel-case";

const positive = (value: number): number => Math.abs(value) + 0.5;
const x23: readonly (readonly number[])[] = [[2, 3]];
const unaryCase = (
  name: string,
  fn: (x: tf.Tensor) => tf.Tensor,
  map?: KernelCase["map"],
): KernelCase => ({
  name,
  inputs: x23,
  fn: (x) => fn(x as tf.Tensor),
  ...(map === undefined ? {} : { map }),
});

const cases: readonly KernelCase[] = [
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
  unaryCase("Cumsum", (x) => tf.square(tf.cumsum(x, 1))),
  unaryCase("Cumsum, exclusive from the end", (x) => tf.square(tf.cumsum(x, 1, true, true))),
  unaryCase("Softmax", (x) => tf.softmax(x)),
  unaryCase("LogSoftmax", (x) => tf.logSoftmax(x)),
  ...[false, true].flatMap((ta) =>
    [false, true].map(
      (tb): KernelCase => ({
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
];

testKernels(cases);
