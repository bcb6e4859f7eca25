// Shape legend: M rows, D width, V vocabulary.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import {
  addBias,
  gelu,
  geluPrimitive,
  layerNorm,
  layerNormPrimitive,
  linearCrossEntropy,
  linearCrossEntropyPrimitive,
  rmsNorm,
  rmsNormPrimitive,
  swiGlu,
  swiGluPrimitive,
} from "#lib/ops/index";
import { type Argument, compileFunction } from "#tests/support/compiled-function";
import { relativeError, testValues } from "#tests/support/compare";

type Tensors = readonly tf.Tensor[];

/** A fused form, the same out of elementary ops, and the same in float64. */
interface AccuracyCase {
  readonly name: string;
  readonly shapes: readonly (readonly number[])[];
  readonly fused: (x: Tensors) => tf.Tensor;
  readonly elementary: (x: Tensors) => tf.Tensor;
  readonly exact: (x: readonly Float64Array[]) => number[];
  readonly scale?: number;
}

const [numRows, width, vocab] = [3, 768, 300];
const narrow = 16;
const epsilon = 1e-5;
const targets = [17, -100, 299];
const smoothed = { labelSmoothing: 0.15 };

const rowsOf = (x: Float64Array, size: number): Float64Array[] =>
  Array.from({ length: x.length / size }, (_, row) => x.subarray(row * size, (row + 1) * size));
const mean = (x: ArrayLike<number>): number =>
  Array.from(x).reduce((sum, value) => sum + value, 0) / x.length;

function exactNorm(x: Float64Array, centre: boolean): number[] {
  return rowsOf(x, width).flatMap((row) => {
    const middle = centre ? mean(row) : 0;
    const variance = mean(Array.from(row, (value) => (value - middle) ** 2));
    return Array.from(row, (value) => (value - middle) / Math.sqrt(variance + epsilon));
  });
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const exactTanhGelu = (x: number): number =>
  0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** x Phi(x) by the series of the error function, which 60 terms sum to float64 up to |x| = 4. */
function exactErfGelu(x: number): number {
  const z = x / Math.SQRT2;
  let [term, sum] = [z, z];
  for (let n = 1; n < 60; n++) {
    term *= -(z * z) / n;
    sum += term / (2 * n + 1);
  }
  return 0.5 * x * (1 + (2 / Math.sqrt(Math.PI)) * sum);
}

function exactCrossEntropy(
  [hidden, weight]: readonly Float64Array[],
  labelSmoothing = 0,
): number[] {
  const words = rowsOf(weight as Float64Array, narrow);
  let loss = 0;
  rowsOf(hidden as Float64Array, narrow).forEach((row, index) => {
    const target = targets[index] as number;
    if (target < 0) return;
    const logits = words.map((word) => word.reduce((sum, w, i) => sum + w * (row[i] as number), 0));
    const expected = (1 - labelSmoothing) * (logits[target] as number);
    loss += Math.log(logits.reduce((sum, l) => sum + Math.exp(l), 0)) - expected;
    loss -= labelSmoothing * mean(logits);
  });
  return [loss];
}

const targetTensor = (): tf.Tensor1D => tf.tensor1d(targets, "int32");
const biased = (x: Float64Array, bias: Float64Array): number[] =>
  Array.from(x, (value, i) => value + (bias[i % bias.length] as number));

const cases: readonly AccuracyCase[] = [
  {
    name: "LayerNorm",
    shapes: [[numRows, width], [width], [width]],
    fused: ([x, w, b]) => layerNorm(x as tf.Tensor, w as tf.Tensor, b as tf.Tensor, epsilon),
    elementary: ([x, w, b]) =>
      layerNormPrimitive(x as tf.Tensor, w as tf.Tensor, b as tf.Tensor, epsilon),
    exact: ([x, w, b]) =>
      exactNorm(x as Float64Array, true).map(
        (n, i) =>
          n * ((w as Float64Array)[i % width] as number) +
          ((b as Float64Array)[i % width] as number),
      ),
  },
  {
    name: "RMSNorm",
    shapes: [[numRows, width], [width]],
    fused: ([x, w]) => rmsNorm(x as tf.Tensor, w as tf.Tensor, epsilon),
    elementary: ([x, w]) => rmsNormPrimitive(x as tf.Tensor, w as tf.Tensor, epsilon),
    exact: ([x, w]) =>
      exactNorm(x as Float64Array, false).map(
        (n, i) => n * ((w as Float64Array)[i % width] as number),
      ),
  },
  {
    name: "bias and GELU (tanh)",
    shapes: [[numRows, width], [width]],
    scale: 2,
    fused: ([x, b]) => gelu(addBias(x as tf.Tensor, b as tf.Tensor), "tanh"),
    elementary: ([x, b]) => geluPrimitive(tf.add(x as tf.Tensor, b as tf.Tensor), "tanh"),
    exact: ([x, b]) => biased(x as Float64Array, b as Float64Array).map(exactTanhGelu),
  },
  {
    name: "bias and GELU (erf)",
    shapes: [[numRows, width], [width]],
    scale: 2,
    fused: ([x, b]) => gelu(addBias(x as tf.Tensor, b as tf.Tensor), "erf"),
    elementary: ([x, b]) => geluPrimitive(tf.add(x as tf.Tensor, b as tf.Tensor), "erf"),
    exact: ([x, b]) => biased(x as Float64Array, b as Float64Array).map(exactErfGelu),
  },
  {
    name: "SwiGLU",
    shapes: [
      [numRows, width],
      [numRows, width],
    ],
    scale: 4,
    fused: ([g, u]) => swiGlu(g as tf.Tensor, u as tf.Tensor),
    elementary: ([g, u]) => swiGluPrimitive(g as tf.Tensor, u as tf.Tensor),
    exact: ([g, u]) =>
      Array.from(g as Float64Array, (x, i) => x * sigmoid(x) * ((u as Float64Array)[i] as number)),
  },
  {
    name: "projection and cross-entropy",
    shapes: [
      [numRows, narrow],
      [vocab, narrow],
    ],
    scale: 2,
    fused: ([h, w]) => linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, targetTensor()),
    elementary: ([h, w]) =>
      linearCrossEntropyPrimitive(h as tf.Tensor2D, w as tf.Tensor2D, targetTensor()),
    exact: (x) => exactCrossEntropy(x),
  },
  {
    name: "projection and cross-entropy of smoothed targets",
    shapes: [
      [numRows, narrow],
      [vocab, narrow],
    ],
    scale: 2,
    fused: ([h, w]) =>
      linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, targetTensor(), smoothed),
    elementary: ([h, w]) =>
      linearCrossEntropyPrimitive(h as tf.Tensor2D, w as tf.Tensor2D, targetTensor(), smoothed),
    exact: (x) => exactCrossEntropy(x, smoothed.labelSmoothing),
  },
];

/** Value and gradients of sum(y * pattern), in float32 on TensorFlow. */
function traced(fn: (x: Tensors) => tf.Tensor, args: readonly Argument[]): Float32Array[] {
  const run = compileFunction((...x: tf.Tensor[]) => {
    const y = fn(x);
    const weighted = (...inputs: tf.Tensor[]): tf.Scalar => {
      const out = fn(inputs);
      return tf.sum(tf.mul(out, tf.tensor(testValues(out.size, 99), out.shape))) as tf.Scalar;
    };
    return [y, ...tf.grads(weighted)(x)];
  });
  return run(...args).map(({ data }) => data as Float32Array);
}

/** The same in float64, gradients by central differences: exact to 1e-9 here. */
function exactly({ exact }: AccuracyCase, args: readonly Argument[]): Float64Array[] {
  const inputs = args.map(({ data }) => Float64Array.from(data));
  const y = exact(inputs);
  const pattern = testValues(y.length, 99);
  const weighted = (): number =>
    exact(inputs).reduce((sum, value, i) => sum + value * (pattern[i] as number), 0);
  const step = 1e-4;
  const gradients = inputs.map((input) =>
    input.map((value, i) => {
      input[i] = value + step;
      const above = weighted();
      input[i] = value - step;
      const below = weighted();
      input[i] = value;
      return (above - below) / (2 * step);
    }),
  );
  return [Float64Array.from(y), ...gradients];
}

for (const testCase of cases) {
  test(`${testCase.name} in float32 is near float64`, (t) => {
    const args = testCase.shapes.map((shape, index): Argument => {
      const size = shape.reduce((a, b) => a * b, 1);
      return { data: testValues(size, index + 1).map((x) => x * (testCase.scale ?? 1)), shape };
    });
    const expected = exactly(testCase, args);
    const errorsOf = (fn: AccuracyCase["fused"]): number[] =>
      traced(fn, args).map((values, i) => relativeError(values, expected[i] as Float64Array));
    const [fused, elementary] = [errorsOf(testCase.fused), errorsOf(testCase.elementary)];
    const shown = (errors: number[]): string => errors.map((e) => e.toExponential(1)).join(" ");
    t.diagnostic(`fused ${shown(fused)}; elementary ${shown(elementary)}`);
    fused.forEach((error, i) => {
      assert.ok(error < 5e-7, `${i === 0 ? "value" : `gradient ${i}`}: ${error}`);
    });
  });
}
