import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { openSafetensors, writeSafetensors, writeTensors } from "#lib/checkpoint/index";
import { isLockstepError } from "#lib/core/errors/index";
import { readTensors } from "#tests/support/read-tensors";
import {
  fixture,
  rejectsWith,
  safetensorsBytes,
  temporaryDirectory,
  temporaryFile,
} from "./support.js";

const original = fixture("tiny-llama", "model.safetensors");

test("a file of transformers, read and written again, is equal to the byte", async (t) => {
  const file = await openSafetensors(original);
  t.after(() => file.close());
  const copy = join(await temporaryDirectory(t), "copy.safetensors");
  const shuffled = [...file.tensors.values()].reverse();
  const { sizeBytes } = await writeSafetensors(copy, shuffled, (name) => file.readBytes(name), {
    metadata: file.metadata,
  });
  const [before, after] = [await readFile(original), await readFile(copy)];
  assert.equal(sizeBytes, before.byteLength);
  assert.ok(before.equals(after));
});

test("halves widen, spans start anywhere, and a SharedArrayBuffer can be the target", async (t) => {
  const values = Float32Array.from({ length: 10 }, (_, i) => (i - 4) / 4);
  const bf16 = new Uint16Array(10);
  const f16 = new Uint16Array(10);
  const { float32ToBfloat16, float32ToFloat16 } = await import("#lib/core/bf16");
  float32ToBfloat16(values, bf16);
  float32ToFloat16(values, f16);
  const bytes = {
    a: new Uint8Array(bf16.buffer),
    b: new Uint8Array(f16.buffer),
    c: new Uint8Array(values.buffer),
  };
  const path = join(await temporaryDirectory(t), "halves.safetensors");
  await writeSafetensors(
    path,
    [
      { name: "a", dtype: "BF16", shape: [2, 5] },
      { name: "b", dtype: "F16", shape: [10] },
      { name: "c", dtype: "F32", shape: [5, 2] },
    ],
    // In pieces of three bytes, as a stream would come.
    function* (name) {
      const all = bytes[name as "a"];
      for (let i = 0; i < all.length; i += 3) yield all.subarray(i, i + 3);
    },
  );
  const file = await openSafetensors(path);
  t.after(() => file.close());
  for (const name of ["a", "b", "c"]) {
    assert.deepEqual(await file.readFloat32(name), values);
    const shared = new Float32Array(new SharedArrayBuffer(64), 4, 12).fill(99);
    const part = await file.readFloat32(name, shared, { start: 3, count: 4 });
    assert.deepEqual([...part], [...values.subarray(3, 7)]);
    assert.deepEqual([...shared.subarray(0, 5)], [...values.subarray(3, 7), 99]);
  }
  await rejectsWith(file.readFloat32("a", undefined, { start: 8, count: 3 }), "E_TENSOR_SIZE");
  await rejectsWith(file.readFloat32("a", new Float32Array(9)), "E_TENSOR_SIZE");
  await rejectsWith(file.readFloat32("nothing"), "E_TENSOR_MISSING");
});

test("scalars, empty tensors and metadata survive; an integer tensor is not read as float", async (t) => {
  const path = join(await temporaryDirectory(t), "odd.safetensors");
  await writeSafetensors(
    path,
    [
      { name: "scalar", dtype: "F32", shape: [] },
      { name: "empty", dtype: "F32", shape: [0, 3] },
      { name: "ids", dtype: "I64", shape: [1] },
    ],
    (name) => new Uint8Array({ scalar: 4, empty: 0, ids: 8 }[name] ?? 0),
    { metadata: { step: "3", 'quoted "key": {': "colon:" } },
  );
  const file = await openSafetensors(path);
  t.after(() => file.close());
  assert.deepEqual({ ...file.metadata }, { step: "3", 'quoted "key": {': "colon:" });
  assert.deepEqual([...(await file.readFloat32("scalar"))], [0]);
  assert.equal((await file.readFloat32("empty")).length, 0);
  await rejectsWith(file.readFloat32("ids"), "E_TENSOR_DTYPE", /I64/);
});

test("writeTensors and readTensors keep every bit, also from shared memory", async (t) => {
  const path = join(await temporaryDirectory(t), "state.safetensors");
  const data = new Float32Array(new SharedArrayBuffer(16));
  data.set([1.5, -0, NaN, 2 ** -149]);
  await writeTensors(path, [{ name: "m", shape: [2, 2], data }], { metadata: { step: "7" } });
  const { tensors, metadata } = await readTensors(path);
  assert.deepEqual(tensors.get("m")?.data, Float32Array.from(data));
  assert.deepEqual({ ...metadata }, { step: "7" });
});

test("a writer that gives too few or too many bytes, or a name twice, is refused", async (t) => {
  const path = join(await temporaryDirectory(t), "wrong.safetensors");
  const entry = { name: "x", dtype: "F32", shape: [2] } as const;
  for (const size of [7, 9]) {
    await rejectsWith(
      writeSafetensors(path, [entry], () => new Uint8Array(size)),
      "E_TENSOR_SIZE",
      /8 bytes/,
    );
  }
  await rejectsWith(
    writeSafetensors(path, [entry, entry], () => new Uint8Array(8)),
    "E_DUPLICATE_TENSOR",
  );
});

const f32 = (begin: number, end: number, shape: unknown = [(end - begin) / 4]): object => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});
const hugeLength = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
const hostile: readonly [string, Buffer, Parameters<typeof rejectsWith>[1], RegExp][] = [
  ["an empty file", Buffer.alloc(0), "E_SAFETENSORS_HEADER", /0 bytes/],
  ["seven bytes", Buffer.alloc(7), "E_SAFETENSORS_HEADER", /7 bytes/],
  ["a header of 2^63 bytes", hugeLength, "E_SAFETENSORS_HEADER", /claims 9223372036854775807/],
  [
    "a header longer than the file",
    Buffer.concat([Buffer.from([200, 0, 0, 0, 0, 0, 0, 0]), Buffer.from("{}")]),
    "E_SAFETENSORS_HEADER",
    /claims 200 bytes, but the file has only 10/,
  ],
  [
    "a header of 200 MB",
    Buffer.from([0, 0, 0, 12, 0, 0, 0, 0]),
    "E_SAFETENSORS_HEADER",
    /at most 100000000/,
  ],
  ["text that is not JSON", safetensorsBytes("{no", 0), "E_SAFETENSORS_HEADER", /not UTF-8 JSON/],
  [
    "a header that is not UTF-8",
    Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([0xff, 0xfe])]),
    "E_SAFETENSORS_HEADER",
    /not UTF-8/,
  ],
  ["a list as header", safetensorsBytes("[]", 0), "E_SAFETENSORS_HEADER", /not a JSON object/],
  [
    "deeply nested JSON",
    safetensorsBytes(`{"x":${"[".repeat(500_000)}`, 0),
    "E_SAFETENSORS_HEADER",
    /not UTF-8 JSON/,
  ],
  [
    "metadata of numbers",
    safetensorsBytes({ __metadata__: { a: 1 } }, 0),
    "E_SAFETENSORS_HEADER",
    /__metadata__/,
  ],
  [
    "a name twice",
    safetensorsBytes(`{"x":${JSON.stringify(f32(0, 4))},"x":${JSON.stringify(f32(0, 4))}}`, 4),
    "E_SAFETENSORS_HEADER",
    /2 entries with only 1/,
  ],
  [
    "overlapping tensors",
    safetensorsBytes({ x: f32(0, 8), y: f32(4, 12) }, 12),
    "E_SAFETENSORS_OFFSETS",
    /overlaps .* by 4 bytes/,
  ],
  [
    "the same span twice",
    safetensorsBytes({ x: f32(0, 8), y: f32(0, 8) }, 8),
    "E_SAFETENSORS_OFFSETS",
    /overlaps/,
  ],
  [
    "a gap",
    safetensorsBytes({ x: f32(0, 4), y: f32(8, 12) }, 12),
    "E_SAFETENSORS_OFFSETS",
    /4 bytes before it/,
  ],
  [
    "bytes that nobody owns",
    safetensorsBytes({ x: f32(0, 4) }, 9),
    "E_SAFETENSORS_HEADER",
    /last 5 bytes/,
  ],
  [
    "a truncated tensor",
    safetensorsBytes({ x: f32(0, 8) }, 5),
    "E_SAFETENSORS_OFFSETS",
    /3 bytes after the end/,
  ],
  [
    "offsets far away",
    safetensorsBytes({ x: f32(0, 4e15) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /after the end/,
  ],
  [
    "an end before its begin",
    safetensorsBytes({ x: f32(4, 0, [1]) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /before its begin/,
  ],
  [
    "negative offsets",
    safetensorsBytes({ x: f32(-4, 0, [1]) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /data_offsets/,
  ],
  [
    "a shape whose product overflows",
    safetensorsBytes({ x: f32(0, 4, [2 ** 40, 2 ** 40]) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /too large/,
  ],
  [
    "a shape that is not its span",
    safetensorsBytes({ x: f32(0, 4, [2]) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /needs 8 bytes/,
  ],
  [
    "a fractional shape",
    safetensorsBytes({ x: f32(0, 4, [1.5]) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /list of sizes/,
  ],
  [
    "a rank of 1000",
    safetensorsBytes({ x: f32(0, 4, Array(1000).fill(1)) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /1000 dimensions/,
  ],
  [
    "a name of a megabyte",
    safetensorsBytes({ ["x".repeat(1 << 20)]: f32(0, 4) }, 4),
    "E_SAFETENSORS_OFFSETS",
    /1048576 characters/,
  ],
  [
    "an unknown type",
    safetensorsBytes({ x: { dtype: "Q9", shape: [1], data_offsets: [0, 4] } }, 4),
    "E_TENSOR_DTYPE",
    /Q9/,
  ],
  [
    "a type that names an inherited property",
    safetensorsBytes({ x: { dtype: "toString", shape: [1], data_offsets: [0, 4] } }, 4),
    "E_TENSOR_DTYPE",
    /toString/,
  ],
  [
    "an entry that is null",
    safetensorsBytes({ x: null }, 4),
    "E_SAFETENSORS_OFFSETS",
    /not a JSON object/,
  ],
];
for (const [what, bytes, code, message] of hostile) {
  test(`refused with a clear error: ${what}`, async (t) => {
    await rejectsWith(
      openSafetensors(await temporaryFile(t, "hostile.safetensors", bytes)),
      code,
      message,
    );
  });
}

test("a missing file and a directory are named as such", async (t) => {
  const directory = await temporaryDirectory(t);
  await rejectsWith(openSafetensors(join(directory, "no.safetensors")), "E_FILE_NOT_FOUND");
  await rejectsWith(openSafetensors(directory), "E_FILE_UNREADABLE", /it is a directory/);
});

test("any mutation of a small file parses, or fails with an error of the catalogue", async (t) => {
  const valid = safetensorsBytes(
    { __metadata__: { format: "pt" }, x: f32(0, 8), y: f32(8, 12) },
    12,
  );
  const path = join(await temporaryDirectory(t), "mutated.safetensors");
  const { writeFile } = await import("node:fs/promises");
  const mutation = fc.record({
    edits: fc.array(fc.record({ at: fc.nat(valid.length - 1), byte: fc.nat(255) }), {
      maxLength: 4,
    }),
    length: fc.oneof(fc.constant(valid.length), fc.nat(valid.length)),
  });
  let numParsed = 0;
  await fc.assert(
    fc.asyncProperty(mutation, async ({ edits, length }) => {
      const bytes = Buffer.from(valid);
      for (const { at, byte } of edits) bytes[at] = byte;
      await writeFile(path, bytes.subarray(0, length));
      try {
        const file = await openSafetensors(path);
        try {
          for (const name of file.tensors.keys()) await file.readBytes(name);
          numParsed++;
        } finally {
          await file.close();
        }
      } catch (error) {
        assert.ok(isLockstepError(error), `not of the catalogue: ${String(error)}`);
      }
    }),
    { numRuns: 500 },
  );
  assert.ok(numParsed > 0, "the unchanged file is among the cases");
});
