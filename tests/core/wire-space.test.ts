import assert from "node:assert/strict";
import { test } from "node:test";
import {
  buildParameterLayout,
  type ElementRange,
  type ParameterLayout,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import {
  passPieces,
  readWireRange,
  readWireSpace,
  wirePieces,
  wireRangeBytes,
} from "#lib/core/wire-space";

const mebi = 2 ** 20;
/** Matrices of these sizes, and a vector. */
const layoutOf = (elements: readonly number[], dtype: "bfloat16" | "float32"): ParameterLayout =>
  buildParameterLayout(
    [
      ...elements.map((size, i) => ({ name: `matrix${i}`, shape: [1, size] })),
      { name: "vector", shape: [33] },
    ],
    dtype,
  );

test("pieces follow each other over the whole space and cut no tensor", () => {
  for (const dtype of ["bfloat16", "float32"] as const) {
    for (const elements of [
      ...[[1], [5, 7], [20 * mebi], [3 * mebi, 20 * mebi, 5], [20 * mebi, 20 * mebi]],
      Array.from({ length: 90 }, (_, i) => (1 + (i % 7)) * mebi + 3),
    ]) {
      const layout = layoutOf(elements, dtype);
      const pieces = wirePieces(layout);
      assert.equal(pieces[0]?.start, 0);
      assert.equal(pieces.at(-1)?.end, layout.numElements);
      const whole = wireRangeBytes(layout, { start: 0, end: layout.numElements });
      for (const [i, range] of pieces.entries()) {
        if (i > 0) assert.equal(range.start, pieces[i - 1]?.end);
        // It begins where TensorFlow takes an array as it is.
        assert.equal(wireOffsetBytes(layout, range.start) % 64, 0);
        const held = layout.tensors.filter(
          ({ offset, size }) => offset < range.end && offset + size > range.start,
        );
        assert.ok(held.every((t) => t.offset >= range.start && t.offset + t.size <= range.end));
        const limit = Math.max(32 * mebi, whole / 16);
        // What no tensor has is padding: before the vectors and at the end.
        const last = held.at(-1);
        const end = (last?.offset ?? 0) + (last?.size ?? 0);
        const bytes = wireRangeBytes(layout, { start: range.start, end });
        assert.ok(bytes <= limit || held.length === 1, `${bytes} bytes in ${held.length} tensors`);
      }
      assert.ok(pieces.length <= 2 * Math.ceil(whole / (32 * mebi)), `${pieces.length} pieces`);
    }
  }
  assert.deepEqual(wirePieces(buildParameterLayout([], "float32")), []);
});

test("a space read range by range is the space read whole, whatever was in the memory", async () => {
  const layout = layoutOf([70_001, 9 * mebi + 5, 9 * mebi], "bfloat16");
  // Padding is what a loader leaves.
  const load = async ({ start, end }: ElementRange, into: Float32Array): Promise<void> => {
    for (const { offset, size } of layout.tensors) {
      for (let i = Math.max(start, offset); i < Math.min(end, offset + size); i++) {
        into[i - start] = i % 65_521;
      }
    }
  };
  const whole = await readWireSpace(layout, load);
  const joined = new Uint8Array(whole.length);
  let numPieces = 0;
  let at = 0;
  const buffers = new Set<SharedArrayBuffer>();
  await passPieces(
    layout,
    async (range, into) => {
      await readWireRange(layout, range, load, into);
    },
    (piece, wireBytes) => {
      assert.equal(piece, numPieces++);
      buffers.add(wireBytes.buffer);
      joined.set(wireBytes, at);
      at += wireBytes.length;
      wireBytes.fill(0xff);
    },
  );
  assert.ok(Buffer.from(joined).equals(Buffer.from(whole.slice())));
  assert.equal(numPieces, 2);
  assert.equal(buffers.size, 1);
  // Ranges that begin and end anywhere.
  const boundary = layout.regions[0]?.end ?? 0;
  const vectors = { start: boundary - 64, end: boundary + 96 };
  const part = new Uint8Array(wireRangeBytes(layout, vectors)).fill(0xff);
  await readWireRange(layout, vectors, load, part);
  const first = wireOffsetBytes(layout, vectors.start);
  assert.deepEqual(part, Uint8Array.from(whole.subarray(first, first + part.length)));
});
