import assert from "node:assert/strict";
import { test } from "node:test";
import { timesByKind, timesByProduct } from "#bench/frame/node-times";
import { GraphBuilder } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { xlaTensor } from "#lib/graph/xla-function";

test("times are added up by op, by compiled function and by product", () => {
  const graph = new GraphBuilder();
  const a = op.placeholder(graph, "a", "float32", [4, 8]);
  const b = op.placeholder(graph, "b", "float32", [4, 2]);
  const product = op.matMul(a, b, true, false);
  const other = op.matMul(a, op.placeholder(graph, "c", "float32", [8, 3]), false, false);
  const square = xlaTensor(graph, "Squared", [product], ([x]) => op.unary("Square", x as typeof a));
  const times = {
    [product.node.name]: { op: "_MklMatMul", us: 3000 },
    [other.node.name]: { op: "_MklMatMul", us: 1000 },
    [square.node.name]: { op: "PartitionedCall", us: 500 },
    "not of the graph": { op: "_Retval", us: 7 },
  };
  assert.deepEqual(timesByKind(graph, times), [
    { kind: "MatMul", numNodes: 2, milliseconds: 4, flops: 2 * (8 * 4 * 2 + 4 * 8 * 3) },
    { kind: "XLA Squared", numNodes: 1, milliseconds: 0.5, flops: 0 },
  ]);
  assert.deepEqual(
    timesByProduct(graph, times).map(({ kind, flops }) => [kind, flops]),
    [
      ["[4, 8]^T x [4, 2]", 128],
      ["[4, 8] x [8, 3]", 192],
    ],
  );
});
