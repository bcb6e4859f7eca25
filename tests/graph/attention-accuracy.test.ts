// Shape legend: B batch, T tokens, N query heads, K key/value heads, H head width.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { GraphBuilder, type GraphTensor } from "#lib/graph/builder";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { hasWideSoftmax } from "#lib/graph/bf16-kernels";
import { attention } from "#lib/ops/index";
import { attentionPrimitive } from "#lib/ops/attention";
import { type Argument, compileFunction } from "#tests/support/compiled-function";
import { relativeError, testValues } from "#tests/support/compare";
import { intArg } from "#tests/support/kernel-case";

/** Several blocks of queries, the last one short. */
const numTokens = 600;
const numHeads = 4;
const numKeyHeads = 2;
const width = 16;
const scale = 1 / Math.sqrt(width);

type Run = (
  q: tf.Tensor,
  k: tf.Tensor,
  v: tf.Tensor,
  dy: tf.Tensor,
  segments?: tf.Tensor,
) => tf.Tensor[];

/** Value and gradients of an attention, with dy as the gradient of its output. */
const withGradients =
  (form: (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, segments?: tf.Tensor) => tf.Tensor): Run =>
  (q, k, v, dy, segments) => {
    const loss = (...xs: tf.Tensor[]): tf.Scalar =>
      tf.sum(tf.mul(form(...(xs as [tf.Tensor, tf.Tensor, tf.Tensor]), segments), dy));
    return [form(q, k, v, segments), ...tf.grads(loss)([q, k, v])];
  };

const fused = withGradients((q, k, v, segments) =>
  attention(q, k, v, { scale, causal: true }, segments),
);
const primitive = withGradients((q, k, v, segments) =>
  attentionPrimitive(q, k, v, { scale, causal: true, window: 0, softcap: 0 }, segments),
);

/** Numbers that bfloat16 holds, so that both precisions start from the same. */
function bfloat16Values(length: number, seed: number): Float32Array {
  const words = new Uint32Array(testValues(length, seed).map((x) => 3 * x).buffer);
  return new Float32Array(words.map((word) => word & 0xffff0000).buffer);
}

function argumentsWith(seed: number): Argument[] {
  return [numHeads, numKeyHeads, numKeyHeads, numHeads].map((heads, index) => ({
    data: bfloat16Values(numTokens * heads * width, seed + index),
    shape: [1, numTokens, heads, width],
  }));
}

/** The same in float64: output, dq, dk and dv. */
function inFloat64([q, k, v, dy]: readonly ArrayLike<number>[]): Float64Array[] {
  const at = (x: ArrayLike<number> | undefined, index: number): number => x?.[index] as number;
  const zeros = (heads: number) => new Float64Array(numTokens * heads * width);
  const [out, dq, dk, dv] = [numHeads, numHeads, numKeyHeads, numKeyHeads].map(zeros) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const lanes = Array.from({ length: width }, (_, i) => i);
  for (let head = 0; head < numHeads; head++) {
    const keyHead = Math.floor(head / (numHeads / numKeyHeads));
    for (let t = 0; t < numTokens; t++) {
      const row = (t * numHeads + head) * width;
      const keys = Array.from({ length: t + 1 }, (_, s) => (s * numKeyHeads + keyHead) * width);
      const dot = (
        a: ArrayLike<number> | undefined,
        b: ArrayLike<number> | undefined,
        key: number,
      ) => lanes.reduce((sum, i) => sum + at(a, row + i) * at(b, key + i), 0);
      const exp = keys.map((key) => Math.exp(scale * dot(q, k, key)));
      const total = exp.reduce((a, b) => a + b, 0);
      const p = exp.map((e) => e / total);
      const dp = keys.map((key) => dot(dy, v, key));
      const rowDot = p.reduce((sum, value, s) => sum + value * (dp[s] as number), 0);
      keys.forEach((key, s) => {
        const weight = p[s] as number;
        const ds = scale * weight * ((dp[s] as number) - rowDot);
        for (const i of lanes) {
          (out[row + i] as number) += weight * at(v, key + i);
          (dq[row + i] as number) += ds * at(k, key + i);
          (dk[key + i] as number) += ds * at(q, row + i);
          (dv[key + i] as number) += weight * at(dy, row + i);
        }
      });
    }
  }
  return [out, dq, dk, dv];
}

const results = ["output", "dq", "dk", "dv"];

for (const { compute, bound } of [
  { compute: "float32", bound: 1e-6 },
  { compute: "bfloat16", bound: 2e-2 },
  { compute: "float16", bound: 3e-3 },
] as const) {
  test(`attention in ${compute} is as near to float64 as its elementary form`, (t) => {
    const args = argumentsWith(1);
    const expected = inFloat64(args.map(({ data }) => data));
    const errorsOf = (run: Run): number[] =>
      compileFunction(run as (...xs: tf.Tensor[]) => tf.Tensor[], { compute })(...args).map(
        ({ data }, index) => relativeError(data, expected[index] as Float64Array),
      );
    const ofFused = errorsOf(fused);
    const ofPrimitive = errorsOf(primitive);
    results.forEach((name, index) => {
      const [ours, theirs] = [ofFused[index] as number, ofPrimitive[index] as number];
      const text = `${name}: fused ${ours.toExponential(2)}, primitive ${theirs.toExponential(2)}`;
      t.diagnostic(text);
      assert.ok(ours <= bound && ours <= 1.2 * theirs + 2.5e-7, text);
    });
  });

  test(`in ${compute} no bit of a segment depends on its neighbour in the row`, () => {
    const boundary = 300;
    const segments = intArg(
      Array.from({ length: numTokens }, (_, t) => (t < boundary ? 1 : 2)),
      [1, numTokens],
    );
    const args = argumentsWith(1);
    const others = argumentsWith(11);
    /** The arguments with other numbers on one side of the boundary. */
    const changed = (isChanged: (token: number) => boolean): Argument[] =>
      args.map(({ data, shape }, index) => {
        const perToken = data.length / numTokens;
        const other = (others[index] as Argument).data;
        const mixed = (data as Float32Array).map((value, i) =>
          isChanged(Math.floor(i / perToken)) ? (other[i] as number) : value,
        );
        return { data: mixed, shape };
      });
    const run = compileFunction(fused as (...xs: tf.Tensor[]) => tf.Tensor[], { compute });
    const whole = run(...args, segments);
    for (const isChanged of [(t: number) => t < boundary, (t: number) => t >= boundary]) {
      run(...changed(isChanged), segments).forEach(({ data }, index) => {
        const perToken = data.length / numTokens;
        const kept = (values: ArrayLike<number>): number[] =>
          Array.from(values).filter((_, i) => !isChanged(Math.floor(i / perToken)));
        const before = kept((whole[index] as { data: Float32Array }).data);
        assert.deepEqual(kept(data), before, results[index]);
        assert.ok(before.some((value) => value !== 0));
      });
    }
  });
}

test("a softmax of bfloat16 that counts as wide has the bits of float32, rounded", () => {
  const graph = new GraphBuilder();
  const [numRows, length] = [64, 700];
  const x = op.placeholder(graph, "x", "float32", [numRows, length]);
  const narrow = op.cast(x, "bfloat16");
  const rounded = (value: GraphTensor, name: string): GraphTensor =>
    op.identity(op.cast(op.cast(value, "bfloat16"), "float32"), { name });
  const inWide = op.softmax(op.cast(narrow, "float32"));
  const direct = hasWideSoftmax("bfloat16") ? op.softmax(narrow) : inWide;
  const fetches = { direct: rounded(direct, "direct"), wide: rounded(inWide, "wide") };
  const session = new Session(graph);
  const data = bfloat16Values(numRows * length, 3);
  const found = session.run({ name: "softmax", feeds: { x }, fetches }, { x: data });
  session.close();
  assert.deepEqual(found["direct"], found["wide"]);
});
