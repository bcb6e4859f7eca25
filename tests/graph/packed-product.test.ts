import assert from "node:assert/strict";
import { test } from "node:test";
import { GraphBuilder } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { canPackProducts } from "#lib/graph/device-probe";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import { assign, readVariable, variable } from "#lib/graph/variables";
import { addBias, gelu } from "#lib/ops/index";
import * as tf from "@tensorflow/tfjs-core";
import { assertClose } from "#tests/support/compare";

const [rows, width, outputs] = [3, 40, 24];
const wave = (length: number, step: number): Float32Array =>
  Float32Array.from({ length }, (_, index) => Math.sin(step * index));

/** x W, or x W^T for a weight stored [N, K], that plus a bias, and both GELUs of the sum. */
function product(packsWeights: boolean, isOutputMajor: boolean) {
  const graph = new GraphBuilder();
  const autocast = { compute: "bfloat16" } as const;
  const shape = isOutputMajor ? [outputs, width] : [width, outputs];
  const weight = variable(graph, "weight", "bfloat16", shape);
  const x = op.placeholder(graph, "x", "float32", [rows, width]);
  const bias = op.placeholder(graph, "bias", "float32", [outputs]);
  const [plain, summed, tanh, erf] = trace({ graph, autocast, packsWeights }, () => {
    const w = symbolicTensor(readVariable(weight));
    const y = tf.matMul(symbolicTensor(x), w, false, isOutputMajor);
    const sum = addBias(y, symbolicTensor(bias));
    const wide = (value: tf.Tensor) => op.cast(graphTensor(value), "float32");
    return [wide(y), wide(sum), wide(gelu(sum, "tanh")), wide(gelu(sum, "erf"))] as const;
  });
  const values = op.placeholder(graph, "values", "float32", shape);
  const done = op.identity(op.intScalar(graph, 1), {
    controlInputs: [assign(weight, op.cast(values, "bfloat16"))],
    name: "done",
  });
  return {
    graph,
    load: { name: "load", feeds: { values }, fetches: { done } },
    run: { name: "run", feeds: { x, bias }, fetches: { plain, summed, tanh, erf } },
  };
}

function compute(packsWeights: boolean, isOutputMajor: boolean) {
  const { graph, load, run } = product(packsWeights, isOutputMajor);
  const session = new Session(graph);
  try {
    session.run(load, { values: wave(width * outputs, 0.7) });
    const data = { x: wave(rows * width, 0.3), bias: wave(outputs, 1.1) };
    return [session.run(run, data), session.run(run, data)] as const;
  } finally {
    session.close();
  }
}

const isPacked = (line: string): boolean => line.includes("_MklNativeFusedMatMul(");

test("a weight's product, its bias and GELU are one packed node, others stay plain", () => {
  const lines = product(true, true).graph.print().split("\n");
  const sums = lines.filter((line) => isPacked(line) && !line.includes("Fill_"));
  const activations = sums.map((line) => /fused_ops=\[(.*?)\]/.exec(line)?.[1]);
  assert.deepEqual(activations, ["BiasAdd", "BiasAdd,GeluApproximate", "BiasAdd,GeluExact"]);
  assert.ok(!lines.some((line) => line.includes("= MatMul(") || line.includes("= AddV2(")));
  assert.ok(!product(false, true).graph.print().split("\n").some(isPacked));
});

for (const isOutputMajor of [true, false]) {
  const form = isOutputMajor ? "[out, in]" : "[in, out]";
  test(`packed products of a weight stored ${form} are the plain ones, again and again`, (t) => {
    if (!canPackProducts("bfloat16")) return t.skip("this engine packs nothing");
    const [expected] = compute(false, isOutputMajor);
    for (const packed of compute(true, isOutputMajor)) {
      for (const what of ["plain", "summed", "tanh", "erf"] as const) {
        // A plain sum is rounded twice, each time by up to 2^-9, its GELU three times.
        const [got, wanted] = [packed[what], expected[what]] as [Float32Array, Float32Array];
        assertClose(got, wanted, 3 * 2 ** -9, what);
      }
    }
  });
}
