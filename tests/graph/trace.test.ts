import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { isLockstepError } from "#lib/core/errors/index";
import { bfloat16ToFloat32, float32ToBfloat16 } from "#lib/core/bf16";
import { assumeHalfKernels } from "#lib/graph/bf16-kernels";
import { GraphBuilder } from "#lib/graph/builder";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { assign, assignAdd, deepCopy, readVariable, variable } from "#lib/graph/variables";
import { rmsNorm } from "#lib/ops/index";
import {
  compileFunction,
  numCompiledFunctions,
  traceFunction,
} from "#tests/support/compiled-function";

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (isLockstepError(error)) return error.code;
    throw error;
  }
  return "nothing was thrown";
};

const x23 = { data: new Float32Array(6), shape: [2, 3] };

test("a program prints as stable text, and equal values are one node", () => {
  const { graph } = traceFunction(
    (x) => tf.mul(tf.exp(x as tf.Tensor), tf.exp(x as tf.Tensor)),
    [x23],
    {
      compute: "float32",
    },
  );
  assert.equal(
    graph.print(),
    [
      "arg0: float32[2,3] = Placeholder() dtype=float32 shape=[2,3]",
      "Exp_0: float32[2,3] = Exp(arg0) T=float32",
      "Mul_0: float32[2,3] = Mul(Exp_0, Exp_0) T=float32",
      "result0: float32[2,3] = Identity(Mul_0) T=float32",
    ].join("\n"),
  );
});

test("autocast: products in bfloat16, exponentials and norms in float32", (t) => {
  assumeHalfKernels(true);
  t.after(() => assumeHalfKernels(undefined));
  const w34 = { data: new Float32Array(12), shape: [3, 4] };
  const { graph } = traceFunction(
    (x, w) => tf.exp(tf.matMul(x as tf.Tensor, w as tf.Tensor)),
    [x23, w34],
    { compute: "bfloat16" },
  );
  assert.equal(
    graph.print(),
    [
      "arg0: float32[2,3] = Placeholder() dtype=float32 shape=[2,3]",
      "arg1: float32[3,4] = Placeholder() dtype=float32 shape=[3,4]",
      "Cast_0: bfloat16[2,3] = Cast(arg0) DstT=bfloat16 SrcT=float32",
      "Cast_1: bfloat16[3,4] = Cast(arg1) DstT=bfloat16 SrcT=float32",
      "MatMul_0: bfloat16[2,4] = MatMul(Cast_0, Cast_1) T=bfloat16 transpose_a=false transpose_b=false",
      "Cast_2: float32[2,4] = Cast(MatMul_0) DstT=float32 SrcT=bfloat16",
      "Exp_0: float32[2,4] = Exp(Cast_2) T=float32",
      "result0: float32[2,4] = Identity(Exp_0) T=float32",
    ].join("\n"),
  );
  const norm = traceFunction(
    (x, w) => rmsNorm(x as tf.Tensor, w as tf.Tensor, 1e-5),
    [x23, { data: new Float32Array(3), shape: [3] }],
    { compute: "bfloat16" },
  ).graph.print();
  assert.match(norm, /^ {2}Rsqrt_0: float32\[2,1\]/m);
  assert.match(norm, /^ {2}Cast_0: bfloat16\[2,3\] = Cast\(Mul_1\)/m);
});

test("without kernels of bfloat16 a product of it is one of float32, rounded", (t) => {
  t.after(() => assumeHalfKernels(undefined));
  const wave = (length: number): Float32Array =>
    Float32Array.from({ length }, (_, i) => Math.sin(3 * i + 1));
  const args = [
    { data: wave(6), shape: [2, 3] },
    { data: wave(12), shape: [3, 4] },
  ];
  const product = (x: tf.Tensor, w: tf.Tensor): tf.Tensor => tf.matMul(x, w);
  assumeHalfKernels(false);
  const text = traceFunction((x, w) => product(x as tf.Tensor, w as tf.Tensor), args, {
    compute: "bfloat16",
  }).graph.print();
  assert.match(text, /MatMul_0: float32\[2,4\] = MatMul\(Cast_\d, Cast_\d\) T=float32/);
  assert.doesNotMatch(text, /MatMul\(.*T=bfloat16/);
  const [got] = compileFunction((x, w) => product(x as tf.Tensor, w as tf.Tensor), {
    compute: "bfloat16",
  })(...args);
  const round = (values: Float32Array): Float32Array =>
    bfloat16ToFloat32(float32ToBfloat16(values));
  const rounded = args.map(({ data, shape }) => ({ data: round(data), shape }));
  const [exact] = compileFunction((x, w) => product(x as tf.Tensor, w as tf.Tensor))(...rounded);
  assert.deepEqual(got?.data, round(exact?.data as Float32Array));
});

test("a tape seeded with ones multiplies nothing by one", () => {
  const gradient = traceFunction(
    (x) => tf.grad((y: tf.Tensor) => tf.sum(tf.square(y)))(x as tf.Tensor),
    [x23],
    {
      compute: "float32",
    },
  ).graph.print();
  assert.doesNotMatch(gradient, /\([^)]*Fill/, "no node reads a tensor of ones");
});

test("equal programs are compiled once, by their whole text", () => {
  const before = numCompiledFunctions();
  const double = compileFunction((x) => tf.add(x as tf.Tensor, x as tf.Tensor));
  const again = compileFunction((y) => tf.add(y as tf.Tensor, y as tf.Tensor));
  const one = { data: Float32Array.of(1, 2), shape: [2] };
  assert.deepEqual([...(double(one)[0]?.data ?? [])], [2, 4]);
  assert.deepEqual([...(again(one)[0]?.data ?? [])], [2, 4]);
  assert.equal(numCompiledFunctions(), before + 1);
  double({ data: Float32Array.of(1, 2, 3), shape: [3] });
  assert.equal(numCompiledFunctions(), before + 2);
});

test("what cannot be traced fails while tracing, by name", () => {
  const traced = (fn: (x: tf.Tensor) => tf.Tensor) => () =>
    traceFunction((x) => fn(x as tf.Tensor), [x23], { compute: "float32" });
  assert.equal(codeOf(traced((x) => tf.cumprod(x))), "E_OP_NOT_LOWERED");
  assert.throws(
    traced((x) => tf.cumprod(x)),
    /Cumprod/,
  );
  assert.equal(
    codeOf(traced((x) => tf.scalar(x.dataSync()[0] as number))),
    "E_VALUE_READ_WHILE_TRACING",
  );
  assert.throws(
    traced((x) => tf.matMul(x, x)),
    /inner|shape|match/i,
  );
});

test("variables keep their value between programs of one session", () => {
  const graph = new GraphBuilder();
  const v = variable(graph, "v", "float32", [2]);
  const feed = op.placeholder(graph, "feed", "float32", [2]);
  const done = (name: string, node: ReturnType<typeof assign>) =>
    op.identity(op.intScalar(graph, 1), { name, controlInputs: [node] });
  const set = {
    name: "set",
    feeds: { feed },
    fetches: { done: done("set", assign(v, deepCopy(feed))) },
  };
  const add = { name: "add", feeds: { feed }, fetches: { done: done("add", assignAdd(v, feed)) } };
  const read = { name: "read", feeds: {}, fetches: { value: readVariable(v) } };
  const session = new Session(graph);
  try {
    session.run(set, { feed: Float32Array.of(1, 2) });
    session.run(add, { feed: Float32Array.of(10, 20) });
    assert.deepEqual([...(session.run(read, {})["value"] ?? [])], [11, 22]);
    assert.equal(
      codeOf(() => session.run(add, { feed: Float32Array.of(1) })),
      "E_SESSION_FEED",
    );
    assert.equal(
      codeOf(() => session.run(add, {})),
      "E_SESSION_FEED",
    );
    assert.equal(
      codeOf(() => session.run(add, { feed: Int32Array.of(1, 2) })),
      "E_SESSION_FEED",
    );
  } finally {
    session.close();
  }
});

test("two nodes of one name are refused", () => {
  const graph = new GraphBuilder();
  op.placeholder(graph, "x", "float32", []);
  assert.equal(
    codeOf(() => op.placeholder(graph, "x", "float32", [])),
    "E_GRAPH_DUPLICATE_NODE",
  );
});
