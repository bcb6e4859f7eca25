import assert from "node:assert/strict";
import { test } from "node:test";
import { GraphBuilder } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { canPackProducts } from "#lib/graph/device-probe";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import { assign, deepCopy, readVariable, variable } from "#lib/graph/variables";
import { addBias, gelu } from "#lib/ops/index";
import * as tf from "@tensorflow/tfjs-core";
import { assertClose } from "#tests/support/compare";

const [rows, width, outputs] = [3, 40, 24];
const wave = (length: number, step: number): Float32Array =>
  Float32Array.from({ length }, (_, index) => Math.sin(step * index));

/** x W, or x W^T for a weight stored [N, K], that plus a bias, and both GELUs of the sum. */
type Compute = "float32" | "bfloat16";

function product(compute: Compute, packsWeights: boolean, isOutputMajor: boolean) {
  const graph = new GraphBuilder();
  const autocast = { compute } as const;
  const shape = isOutputMajor ? [outputs, width] : [width, outputs];
  const weight = variable(graph, "weight", compute, shape);
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
    controlInputs: [
      assign(weight, compute === "float32" ? deepCopy(values) : op.cast(values, compute)),
    ],
    name: "done",
  });
  return {
    graph,
    load: { name: "load", feeds: { values }, fetches: { done } },
    run: { name: "run", feeds: { x, bias }, fetches: { plain, summed, tanh, erf } },
  };
}

function run(compute: Compute, packsWeights: boolean, isOutputMajor: boolean) {
  const { graph, load, run: program } = product(compute, packsWeights, isOutputMajor);
  const session = new Session(graph);
  try {
    session.run(load, { values: wave(width * outputs, 0.7) });
    const data = { x: wave(rows * width, 0.3), bias: wave(outputs, 1.1) };
    return [session.run(program, data), session.run(program, data)] as const;
  } finally {
    session.close();
  }
}

const isPacked = (line: string): boolean => line.includes("_MklNativeFusedMatMul(");

test("a weight's product, its bias and GELU are one packed node, others stay plain", () => {
  const lines = product("bfloat16", true, true).graph.print().split("\n");
  const sums = lines.filter((line) => isPacked(line) && !line.includes("Fill_"));
  const activations = sums.map((line) => /fused_ops=\[(.*?)\]/.exec(line)?.[1]);
  assert.deepEqual(activations, ["BiasAdd", "BiasAdd,GeluApproximate", "BiasAdd,GeluExact"]);
  assert.ok(!lines.some((line) => line.includes("= MatMul(") || line.includes("= AddV2(")));
  assert.ok(!product("bfloat16", false, true).graph.print().split("\n").some(isPacked));
});

/** A plain sum of bfloat16 is rounded twice, each time by up to 2^-9, its GELU three times. */
const tolerances = { float32: 1e-5, bfloat16: 3 * 2 ** -9 } as const;

for (const type of ["float32", "bfloat16"] as const) {
  for (const isOutputMajor of [true, false]) {
    const form = isOutputMajor ? "[out, in]" : "[in, out]";
    test(`packed ${type} products of a weight stored ${form} are the plain ones, again and again`, (t) => {
      if (!canPackProducts(type)) return t.skip("this processor packs nothing of this type");
      const [expected] = run(type, false, isOutputMajor);
      for (const packed of run(type, true, isOutputMajor)) {
        for (const what of ["plain", "summed", "tanh", "erf"] as const) {
          const [got, wanted] = [packed[what], expected[what]] as [Float32Array, Float32Array];
          assertClose(got, wanted, tolerances[type], what);
        }
      }
    });
  }
}
