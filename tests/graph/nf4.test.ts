/** Weights of 4 bits in a graph: their values are those of `readNf4`, and each product makes its own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { bfloat16ToFloat32, float32ToBfloat16 } from "#lib/core/bf16";
import { type Nf4Form, nf4GroupBytes, nf4GroupElements, Nf4Writer, readNf4 } from "#lib/core/nf4";
import { GraphBuilder, type GraphTensor, neededNodes } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { dequantised, nf4Shape } from "#lib/graph/nf4";
import { onDemand } from "#lib/graph/on-demand";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import { testValues } from "#tests/support/compare";

function quantise(form: Nf4Form, size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(size / nf4GroupElements) * nf4GroupBytes[form]);
  const writer = new Nf4Writer(form, { name: "w", size }, bytes);
  writer.add(testValues(size, seed));
  writer.finish();
  return bytes;
}

/** A feed of a tensor's bytes, and the tensor [groups, bytes of one]. */
function fedBytes(graph: GraphBuilder, form: Nf4Form, size: number) {
  const [groups, groupBytes] = nf4Shape(form, size);
  const numWords = (groups * groupBytes) / 4;
  const feed = op.placeholder(graph, "feed", "int32", [numWords]);
  const bytes = op.bitcast(feed, "uint8", [numWords, 4]);
  return { feed, bytes: op.reshape(bytes, [groups, groupBytes]) };
}

for (const form of ["nf4", "nf4-double"] as const) {
  for (const shape of [
    [3, 7],
    [64, 256],
    [5, 4001],
  ]) {
    test(`${form} of [${shape.join(", ")}] is dequantised to the last bit`, () => {
      const size = op.numElements(shape);
      const stored = quantise(form, size, 5);
      const graph = new GraphBuilder();
      const { feed, bytes } = fedBytes(graph, form, size);
      const fetches = {
        float32: dequantised(form, bytes, shape, "float32"),
        bfloat16: op.cast(dequantised(form, bytes, shape, "bfloat16"), "float32"),
      };
      const session = new Session(graph);
      const program = { name: "dequantise", feeds: { feed }, fetches };
      const found = session.run(program, { feed: new Int32Array(stored.buffer) });
      session.close();
      const expected = readNf4(form, size, stored);
      assert.deepEqual(found["float32"], expected);
      assert.deepEqual(found["bfloat16"], bfloat16ToFloat32(float32ToBfloat16(expected)));
    });
  }
}

test("forward and backward of a product make the weight each for itself, once the other operand is there", () => {
  const graph = new GraphBuilder();
  const { bytes } = fedBytes(graph, "nf4", 64 * 32);
  const x = op.placeholder(graph, "x", "float32", [5, 32]);
  const made: GraphTensor[] = [];
  const fetches = trace({ graph, autocast: { compute: "float32" } }, () => {
    const weight = symbolicTensor<tf.Rank.R2>(
      onDemand((after) => {
        const own = op.identity(bytes, { controlInputs: after });
        made.push(dequantised("nf4", own, [64, 32], "float32"));
        return made.at(-1) as GraphTensor;
      }),
    );
    const loss = (input: tf.Tensor): tf.Scalar =>
      tf.sum(tf.square(tf.matMul(input as tf.Tensor2D, weight, false, true)));
    const { value, grad } = tf.valueAndGrad(loss)(symbolicTensor(x));
    return [value, grad].map(graphTensor);
  });
  const needed = neededNodes(fetches.map(({ node }) => node));
  const used = made.filter(({ node }) => needed.has(node));
  // That of the model's view, which nothing uses, that of forward and that of backward.
  assert.deepEqual([made.length, used.length], [3, 2]);
  for (const { node } of used) {
    const consumers = [...needed].filter((each) =>
      each.inputs.some((input) => input.node === node),
    );
    assert.deepEqual(
      consumers.map((each) => each.op),
      ["MatMul"],
    );
    const [product] = consumers;
    const other = product?.inputs[0]?.node;
    assert.ok(other !== undefined && neededNodes([node]).has(other), "it waits for the operand");
  }
});
