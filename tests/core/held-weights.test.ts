import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { float32ToBfloat16 } from "#lib/core/bf16";
import { HeldDigest, heldLayout } from "#lib/core/held-weights";
import {
  buildParameterLayout,
  type ParameterLayout,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";

const tensors = [
  { name: "matrix", shape: [300, 500] },
  { name: "vector", shape: [1_000] },
  { name: "odd", shape: [7, 11] },
];
const whole = (layout: ParameterLayout) => ({ start: 0, end: layout.numElements });

test("a flipped bit changes the digest, wherever it is, and however the space is cut", () => {
  const layout = buildParameterLayout(tensors, "bfloat16");
  const bytes = Uint8Array.from(
    { length: wireSizeBytes(layout) },
    (_, i) => (i * 31 + (i >> 7)) & 255,
  );
  const digestOf = (cut: number): string => {
    const digest = new HeldDigest(layout, "bf16");
    const range = whole(layout);
    // Elements of the first region have two bytes.
    digest.addSent({ start: 0, end: cut }, bytes.subarray(0, cut * 2));
    digest.addSent({ start: cut, end: range.end }, bytes.subarray(cut * 2));
    return digest.hex;
  };
  const isOfTensor = (at: number): boolean =>
    layout.tensors.some(
      ({ offset, size }) =>
        at >= wireOffsetBytes(layout, offset) && at < wireOffsetBytes(layout, offset + size),
    );
  const expected = digestOf(65_536);
  fc.assert(
    fc.property(
      fc.nat(bytes.length - 1),
      fc.nat(7),
      fc.integer({ min: 1, max: 150_000 }),
      (at, bit, cut) => {
        assert.equal(digestOf(cut), expected);
        bytes[at] = (bytes[at] as number) ^ (1 << bit);
        assert.equal(digestOf(65_536) === expected, !isOfTensor(at));
        bytes[at] = (bytes[at] as number) ^ (1 << bit);
      },
    ),
    { numRuns: 60 },
  );
});

test("what is sent in one type and held in another has one digest", () => {
  const layout = buildParameterLayout(tensors, "float32");
  const held = heldLayout(layout, "bf16");
  const values = Float32Array.from({ length: layout.numElements }, (_, i) =>
    Math.fround(Math.sin(i) * 10 ** ((i % 80) - 42)),
  );
  const [matrices] = held.regions;
  assert.equal(matrices?.dtype, "bfloat16");
  const heldBytes = new Uint8Array(wireSizeBytes(held));
  const words = float32ToBfloat16(values.subarray(0, matrices.end));
  heldBytes.set(new Uint8Array(words.buffer));
  heldBytes.set(new Uint8Array(values.slice(matrices.end).buffer), words.byteLength);
  const sent = new HeldDigest(layout, "bf16");
  sent.addSent(whole(layout), new Uint8Array(values.buffer));
  const digest = new HeldDigest(layout, "bf16");
  digest.addHeld(whole(layout), heldBytes);
  assert.equal(digest.hex, sent.hex);
});
