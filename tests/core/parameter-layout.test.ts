import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type WireDtype, wireBytesPerElement } from "#lib/core/dtype";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
  type Region,
  regionAt,
  shardRanges,
  slotAlignElements,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { readWireRange, wireRangeBytes } from "#lib/core/wire-space";

const dtypes = fc.constantFrom<WireDtype[]>("bfloat16", "float32");

const tensors = fc
  .array(
    fc.record(
      {
        shape: fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 0, maxLength: 3 }),
        decays: fc.boolean(),
      },
      { requiredKeys: ["shape"] },
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.map((part, i) => ({ name: `tensor${i}`, ...part })));

/** A space of some blocks in any regions. */
const layouts: fc.Arbitrary<ParameterLayout> = fc
  .array(
    fc.record({
      numBlocks: fc.integer({ min: 1, max: 3 }),
      dtype: dtypes,
      decays: fc.boolean(),
      rateMultiplier: fc.constantFrom(1, 0.5),
      firstUpdate: fc.integer({ min: 1, max: 3 }),
    }),
    { maxLength: 5 },
  )
  .map((parts) => {
    const regions: Region[] = [];
    let start = 0;
    for (const { numBlocks, ...rest } of parts) {
      const end = start + numBlocks * blockElements;
      regions.push({ start, end, ...rest });
      start = end;
    }
    return { tensors: [], numElements: start, regions };
  });

test("a space holds each tensor in the region of its kind, aligned, in order and without overlap", () => {
  fc.assert(
    fc.property(tensors, dtypes, (given, dtype) => {
      const layout = buildParameterLayout(given, dtype);
      let end = 0;
      for (const region of layout.regions) {
        assert.equal(region.start, end);
        assert.ok(region.end > region.start);
        assert.equal(region.end % blockElements, 0);
        end = region.end;
      }
      assert.equal(layout.numElements, end);
      const isMatrix = (shape: readonly number[]): boolean => shape.length >= 2;
      const decayOf = new Map(
        given.map(({ name, shape, decays = isMatrix(shape) }) => [name, decays]),
      );
      const expected = [true, false].flatMap((ofMatrices) => {
        const members = given.filter(({ shape }) => isMatrix(shape) === ofMatrices);
        const isUsual = ({ name }: { readonly name: string }): boolean =>
          decayOf.get(name) === ofMatrices;
        return [...members.filter(isUsual), ...members.filter((each) => !isUsual(each))];
      });
      assert.deepEqual(
        layout.tensors.map(({ name, shape }) => ({ name, shape })),
        expected.map(({ name, shape }) => ({ name, shape })),
      );
      let free = 0;
      for (const { name, shape, offset, size } of layout.tensors) {
        assert.equal(
          size,
          shape.reduce((product, dim) => product * dim, 1),
        );
        assert.equal(offset % slotAlignElements, 0);
        assert.ok(offset >= free);
        free = offset + size;
        const region = regionAt(layout, offset);
        assert.equal(regionAt(layout, free - 1), region);
        assert.deepEqual(
          { dtype: region.dtype, decays: region.decays },
          { dtype: isMatrix(shape) ? dtype : "float32", decays: decayOf.get(name) },
        );
        // TensorFlow takes an array as it is where it begins at 64 bytes.
        assert.equal(wireOffsetBytes(layout, offset) % 64, 0);
      }
    }),
  );
});

test("the byte of an element is the sum of the bytes of those before it, in any regions", () => {
  fc.assert(
    fc.property(layouts, fc.nat(), (layout, seed) => {
      let bytes = 0;
      for (let block = 0; block * blockElements < layout.numElements; block++) {
        const start = block * blockElements;
        const { dtype } = regionAt(layout, start);
        const within = seed % blockElements;
        assert.equal(wireOffsetBytes(layout, start), bytes);
        const at = bytes + within * wireBytesPerElement[dtype];
        assert.equal(wireOffsetBytes(layout, start + within), at);
        bytes += blockElements * wireBytesPerElement[dtype];
      }
      assert.equal(wireSizeBytes(layout), bytes);
      for (const outside of [-1, layout.numElements]) {
        assert.throws(() => regionAt(layout, outside), RangeError);
      }
    }),
  );
});

test("shards share the blocks out in order, none more than one block ahead of another", () => {
  fc.assert(
    fc.property(layouts, fc.integer({ min: 1, max: 20 }), (layout, numShards) => {
      const ranges = shardRanges(layout, numShards);
      assert.equal(ranges.length, numShards);
      let end = 0;
      for (const range of ranges) {
        assert.equal(range.start, end);
        assert.equal(range.end % blockElements, 0);
        end = range.end;
      }
      assert.equal(end, layout.numElements);
      const sizes = ranges.map((range) => range.end - range.start);
      assert.ok(Math.max(...sizes) - Math.min(...sizes) <= blockElements);
      const bytes = ranges.reduce((sum, range) => sum + wireRangeBytes(layout, range), 0);
      assert.equal(bytes, wireSizeBytes(layout));
    }),
  );
});

test("every element of any range travels in the type of its region", async () => {
  /** Exact in bfloat16. */
  const valueOf = (element: number): number => (element % 251) - 125;
  await fc.assert(
    fc.asyncProperty(layouts, fc.nat(), fc.nat(), async (layout, a, b) => {
      const pairs = layout.numElements / slotAlignElements + 1;
      const [start, end] = [a % pairs, b % pairs]
        .sort((x, y) => x - y)
        .map((at) => at * slotAlignElements) as [number, number];
      const range = { start, end };
      const bytes = new Uint8Array(wireRangeBytes(layout, range));
      await readWireRange(
        layout,
        range,
        async (part, into) => {
          for (let i = 0; i < into.length; i++) into[i] = valueOf(part.start + i);
        },
        bytes,
      );
      const view = new DataView(bytes.buffer);
      const first = wireOffsetBytes(layout, start);
      for (let i = start; i < end; i += 7) {
        const at = wireOffsetBytes(layout, i) - first;
        if (regionAt(layout, i).dtype === "float32") {
          assert.equal(view.getFloat32(at, true), valueOf(i));
        } else {
          const word = new Uint32Array([view.getUint16(at, true) << 16]);
          assert.equal(new Float32Array(word.buffer)[0], valueOf(i));
        }
      }
    }),
    { numRuns: 30 },
  );
});
