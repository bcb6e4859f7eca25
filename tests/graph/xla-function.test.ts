import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { GraphBuilder, type GraphTensor } from "#lib/graph/builder";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { xlaFunction, xlaTensor } from "#lib/graph/xla-function";

const swish = ([x]: readonly GraphTensor[]): GraphTensor =>
  op.mul(x as GraphTensor, op.unary("Sigmoid", x as GraphTensor));

test("a function has the value of its body, and several results", () => {
  const graph = new GraphBuilder();
  const feed = op.placeholder(graph, "feed", "float32", [2, 3]);
  const [swished, rowSum] = xlaFunction(graph, "Both", [feed], (args) => [
    swish(args),
    op.reduce("Sum", args[0] as GraphTensor, [1], false),
  ]) as [GraphTensor, GraphTensor];
  const fetches = { swished, rowSum, plain: swish([feed]) };
  const session = new Session(graph);
  try {
    const program = { name: "both", feeds: { feed }, fetches };
    const out = session.run(program, { feed: Float32Array.of(1, -2, 3, 0.5, 0, -8) });
    assert.deepEqual([...(out["rowSum"] ?? [])], [2, -7.5]);
    for (const [index, value] of [...(out["plain"] ?? [])].entries()) {
      assert.ok(Math.abs((out["swished"]?.[index] as number) - value) < 1e-6, `element ${index}`);
    }
  } finally {
    session.close();
  }
});

test("equal functions are one, equal calls are one node, and both print as stable text", () => {
  const graph = new GraphBuilder();
  const a = op.placeholder(graph, "a", "float32", [2]);
  const b = op.placeholder(graph, "b", "float32", [2]);
  const calls = [a, b, a].map((x) => xlaTensor(graph, "Swish", [x], swish));
  assert.equal(calls[0], calls[2]);
  assert.notEqual(calls[0], calls[1]);
  const call = (number: number, arg: string): string =>
    `PartitionedCall_${number}: float32[2] = PartitionedCall(${arg}) Tin=[float32] Tout=[float32] _XlaMustCompile=true config="" config_proto="" executor_type="" f=Swish_f0`;
  assert.equal(
    graph.print(),
    [
      "a: float32[2] = Placeholder() dtype=float32 shape=[2]",
      "b: float32[2] = Placeholder() dtype=float32 shape=[2]",
      call(0, "a"),
      call(1, "b"),
      "function Swish_f0",
      "  arg0: float32[2] = _Arg()",
      "  Sigmoid_0: float32[2] = Sigmoid(arg0) T=float32",
      "  Mul_0: float32[2] = Mul(arg0, Sigmoid_0) T=float32",
      "  -> Mul_0",
    ].join("\n"),
  );
});

test("an op without a known output cannot stand in a function", () => {
  const graph = new GraphBuilder();
  const x = op.placeholder(graph, "x", "float32", [2]);
  assert.throws(
    () => xlaTensor(graph, "Bad", [x], ([arg]) => op.unary("Lgamma", arg as GraphTensor)),
    (error) => isLockstepError(error) && error.code === "E_GRAPH_FUNCTION_OP",
  );
});
