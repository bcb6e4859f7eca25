/** Attention in parts against attention of the whole in elementary ops. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { GraphBuilder } from "#lib/graph/builder";
import { laterValue } from "#lib/graph/later-value";
import { PartedAttention } from "#lib/graph/parted-attention";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor } from "#lib/graph/tracing-backend";
import { type AttentionOptions, attentionAttrs } from "#lib/ops/index";
import { attentionPrimitive } from "#lib/ops/attention";
import { compileFunction } from "#tests/support/compiled-function";
import { assertClose } from "#tests/support/compare";
import { floatArg, intArg } from "#tests/support/kernel-case";

const [batch, numTokens, numHeads, numKeyHeads, width] = [2, 300, 4, 2, 8];
/** The second has more than one block of queries. */
const parts = [
  { start: 0, length: 17 },
  { start: 17, length: 270 },
  { start: 287, length: 13 },
];
const scale = 1 / Math.sqrt(width);

/** Two samples and padding in the first row, a sample in the second. */
const segments = Array.from({ length: batch * numTokens }, (_, i) =>
  i < 120 ? 1 : i < 250 ? 2 : i < numTokens ? 0 : 1,
);
const args = [
  ...[numHeads, numKeyHeads, numKeyHeads].map((heads, index) =>
    floatArg([batch, numTokens, heads, width], index + 1),
  ),
  intArg(segments, [batch, numTokens]),
];

function inParts(options: AttentionOptions) {
  return (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, segments_BT: tf.Tensor): tf.Tensor => {
    const { graph } = graphTensor(q).node;
    const tracer = { graph, autocast: { compute: "float32" } } as const;
    const attention = new PartedAttention(tracer, parts, graphTensor(segments_BT));
    const outs = parts.map(({ start, length }, part) => {
      const [ownQ, ownK, ownV] = [q, k, v].map((x) => {
        const [, , heads, h] = x.shape as [number, number, number, number];
        return graphTensor(tf.slice(x, [0, start, 0, 0], [batch, length, heads, h]));
      });
      const qkv = [ownQ, ownK, ownV] as Parameters<PartedAttention["attend"]>[2];
      return symbolicTensor(attention.attend(part, 0, qkv, options));
    });
    return tf.concat(outs, 1);
  };
}

function whole(options: AttentionOptions): Float32Array {
  void tf.setBackend("cpu");
  return tf.tidy(() => {
    const [q, k, v, marks] = args.map(({ data, shape }, index) =>
      tf.tensor(data, [...shape], index === 3 ? "int32" : "float32"),
    ) as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
    return attentionPrimitive(q, k, v, attentionAttrs(options), marks).dataSync() as Float32Array;
  });
}

const forms: Readonly<Record<string, AttentionOptions>> = {
  "in both directions": { scale, causal: false },
  causal: { scale, causal: true },
  "causal in a window": { scale, causal: true, window: 40 },
  "in a window, capped": { scale, causal: false, window: 40, softcap: 2 },
};

for (const [name, options] of Object.entries(forms)) {
  test(`uneven parts see what the whole sees: ${name}`, () => {
    const [result] = compileFunction(inParts(options))(...args);
    assertClose((result as { data: Float32Array }).data, whole(options), 2e-6, name);
  });
}

test("a value that is never given is refused", () => {
  const graph = new GraphBuilder();
  const { tensor } = laterValue(graph, "float32", [2]);
  op.identity(tensor, { name: "fetch" });
  assert.throws(() => new Session(graph), /cycle/);
});
