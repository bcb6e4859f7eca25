import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { type Argument, compileFunction } from "#tests/support/compiled-function";
import { assertClose, testValues } from "#tests/support/compare";

/** One differentiable use of a kernel: `inputs` are differentiated, `constants` are not. */
export interface KernelCase {
  readonly name: string;
  readonly inputs: readonly (readonly number[])[];
  readonly constants?: readonly Argument[];
  /** Moves inputs into the domain of the op. */
  readonly map?: (value: number) => number;
  readonly fn: (...args: tf.Tensor[]) => tf.Tensor;
}

export const intArg = (values: readonly number[], shape: readonly number[]): Argument => ({
  data: Int32Array.from(values),
  shape,
});
export const floatArg = (shape: readonly number[], seed: number): Argument => ({
  data: testValues(
    shape.reduce((a, b) => a * b, 1),
    seed,
  ),
  shape,
});

/** sum(fn(inputs) * a fixed pattern): a scalar whose gradient sees every output apart. */
function weighted(testCase: KernelCase): (...args: tf.Tensor[]) => tf.Tensor {
  return (...args) => {
    const y = testCase.fn(...args);
    const pattern = testValues(y.size, 99);
    return tf.sum(tf.mul(y, tf.tensor(pattern, y.shape)));
  };
}

function valueAndGradients(testCase: KernelCase): (...args: tf.Tensor[]) => tf.Tensor[] {
  const f = weighted(testCase);
  return (...args) => {
    const inputs = args.slice(0, testCase.inputs.length);
    const constants = args.slice(testCase.inputs.length);
    const gradients = tf.grads((...xs: tf.Tensor[]) => f(...xs, ...constants) as tf.Scalar)(inputs);
    return [f(...args), ...gradients];
  };
}

function argumentsOf(testCase: KernelCase): Argument[] {
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

/** Value and gradients of the traced kernel equal those of the elementary ops on the eager backend. */
export function assertTracedIsEager(testCase: KernelCase): void {
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
}

/** Registers both tests of every case: traced = eager, and gradient = central difference. */
export function testKernels(cases: readonly KernelCase[]): void {
  for (const testCase of cases) {
    test(`${testCase.name}: traced = eager, value and gradients`, () =>
      assertTracedIsEager(testCase));
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
}
