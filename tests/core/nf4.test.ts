/** The bytes of NF4 against those that bitsandbytes made: tests/reference/make_qlora_fixture.py. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  type Nf4Form,
  nf4FactorByte,
  nf4BlocksPerGroup,
  nf4GroupBytes,
  nf4GroupElements,
  nf4Levels,
  nf4PackedBytes,
  nf4ScaleLevels,
  Nf4Writer,
  readNf4,
} from "#lib/core/nf4";

interface QuantisedTensor {
  readonly shape: readonly number[];
  /** int8, hexadecimal; the values are these over 1024. */
  readonly numerators: string;
  readonly packed: string;
  readonly absmax: readonly number[];
  readonly codes: string;
  readonly factors: readonly number[];
  readonly mean: number;
}

const fixture = JSON.parse(readFileSync("tests/fixtures/qlora/nf4.json", "utf8")) as Record<
  string,
  QuantisedTensor
>;
const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"));
const valuesOf = ({ numerators }: QuantisedTensor): Float32Array =>
  Float32Array.from(Int8Array.from(Buffer.from(numerators, "hex")), (each) => each / 1024);

function written(form: Nf4Form, values: Float32Array, partElements = values.length): Uint8Array {
  const numGroups = Math.ceil(values.length / nf4GroupElements);
  const bytes = new Uint8Array(numGroups * nf4GroupBytes[form]);
  const writer = new Nf4Writer(form, { name: "w", size: values.length }, bytes);
  for (let start = 0; start < values.length; start += partElements) {
    writer.add(values.subarray(start, start + partElements));
  }
  writer.finish();
  return bytes;
}

/** A part of each group, one after the other. */
const partsOf = (form: Nf4Form, bytes: Uint8Array, from: number, to: number): Uint8Array =>
  Uint8Array.from(bytes).filter((_, i) => {
    const within = i % nf4GroupBytes[form];
    return within >= from && within < to;
  });

const floatsOf = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.buffer);

for (const [name, tensor] of Object.entries(fixture)) {
  test(`packed bytes and scales of ${name} are those of bitsandbytes`, () => {
    const values = valuesOf(tensor);
    const packed = bytesOf(tensor.packed);
    for (const form of ["nf4", "nf4-double"] as const) {
      const bytes = written(form, values);
      assert.deepEqual(
        partsOf(form, bytes, 0, nf4PackedBytes).subarray(0, packed.length),
        packed,
        form,
      );
      // The tensor may come in parts of whole blocks.
      assert.deepEqual(written(form, values, 128), bytes);
    }
    const plain = partsOf("nf4", written("nf4", values), nf4PackedBytes, nf4GroupBytes.nf4);
    const scales = floatsOf(plain).subarray(0, tensor.absmax.length);
    assert.deepEqual(scales, Float32Array.from(tensor.absmax));
  });

  test(`scales in 8 bits of ${name} are those of bitsandbytes, to the order of its mean`, () => {
    const bytes = written("nf4-double", valuesOf(tensor));
    const codes = bytesOf(tensor.codes);
    const ours = partsOf("nf4-double", bytes, nf4PackedBytes, nf4PackedBytes + nf4BlocksPerGroup);
    assert.deepEqual(ours.subarray(0, codes.length), codes);
    const floats = floatsOf(partsOf("nf4-double", bytes, nf4FactorByte, nf4FactorByte + 8));
    tensor.factors.forEach((factor, group) => {
      const [ourFactor, mean] = floats.subarray(2 * group) as unknown as [number, number];
      // torch adds the magnitudes in float32, in an order of its processor's.
      assert.ok(Math.abs(mean / tensor.mean - 1) < 2e-7, `${mean} and ${tensor.mean}`);
      assert.ok(Math.abs(ourFactor - factor) <= 2e-7 * tensor.mean, `${ourFactor} and ${factor}`);
    });
  });
}

test("bytes of a file of bitsandbytes' numbers are its own, and so is what they stand for, to the last bit", () => {
  const golden = JSON.parse(readFileSync("tests/fixtures/golden/nf4.json", "utf8")) as {
    readonly values: string;
    readonly packed: string;
    readonly absmax: string;
    readonly dequantised_sha256: string;
    readonly double: Readonly<
      Record<"codes" | "factors" | "levels" | "dequantised_sha256", string>
    > & { readonly mean: number };
  };
  const decoded = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "base64"));
  const values = floatsOf(decoded(golden.values));
  const { double } = golden;
  assert.deepEqual(Float32Array.from(nf4ScaleLevels), floatsOf(decoded(double.levels)));
  for (const form of ["nf4", "nf4-double"] as const) {
    const bytes = written(form, values);
    const packed = decoded(golden.packed);
    assert.deepEqual(partsOf(form, bytes, 0, nf4PackedBytes).subarray(0, packed.length), packed);
    // A level of 0 under a negative scale is no other number.
    const read = readNf4(form, values.length, bytes).map((each) => each + 0);
    const sha256 = createHash("sha256").update(new Uint8Array(read.buffer)).digest("hex");
    const expected = form === "nf4" ? golden : double;
    assert.equal(sha256, expected.dequantised_sha256, form);
  }
  const bytes = written("nf4-double", values);
  const codes = decoded(double.codes);
  const ours = partsOf("nf4-double", bytes, nf4PackedBytes, nf4PackedBytes + nf4BlocksPerGroup);
  assert.deepEqual(ours.subarray(0, codes.length), codes);
  const scales = floatsOf(partsOf("nf4-double", bytes, nf4FactorByte, nf4FactorByte + 8));
  floatsOf(decoded(double.factors)).forEach((factor, group) => {
    assert.deepEqual(
      scales.subarray(2 * group, 2 * group + 2),
      Float32Array.of(factor, double.mean),
    );
  });
});

test("what is read is level times scale, in float32", () => {
  const values = valuesOf(fixture["groups"] as QuantisedTensor);
  const { absmax, codes, mean } = fixture["groups"] as QuantisedTensor;
  const packed = bytesOf((fixture["groups"] as QuantisedTensor).packed);
  const levelOf = (i: number): number => {
    const byte = packed[i >> 1] as number;
    return nf4Levels[i % 2 === 0 ? byte >> 4 : byte & 15] as number;
  };
  const plain = readNf4("nf4", values.length, written("nf4", values));
  const double = readNf4("nf4-double", values.length, written("nf4-double", values));
  const bytes = bytesOf(codes);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor(i / 64);
    assert.equal(plain[i], Math.fround(levelOf(i) * (absmax[block] as number)));
    const code = nf4ScaleLevels[bytes[block] as number] as number;
    const { factors } = fixture["groups"] as QuantisedTensor;
    const scale = code * (factors[Math.floor(block / 256)] as number) + mean;
    assert.ok(Math.abs((double[i] as number) - levelOf(i) * scale) < 1e-6 * scale);
  }
});

test("a writer takes whole blocks, and no more and no less than the tensor", () => {
  const bytes = new Uint8Array(nf4GroupBytes.nf4);
  assert.throws(
    () => new Nf4Writer("nf4", { name: "w", size: nf4GroupElements + 1 }, bytes),
    RangeError,
  );
  const writer = new Nf4Writer("nf4", { name: "w", size: 100 }, bytes);
  assert.throws(() => writer.add(new Float32Array(65)), RangeError);
  assert.throws(() => writer.add(new Float32Array(128)), RangeError);
  writer.add(new Float32Array(64));
  assert.throws(() => writer.finish(), RangeError);
});

test("zeros, one element and the least and largest numbers stay what they are, within half a step", () => {
  const least = 2 ** -149;
  const most = 3.4028234663852886e38;
  for (const values of [
    [0],
    [-3],
    [least],
    Array.from({ length: 64 }, () => 0),
    Array.from({ length: 65 }, () => least),
    [...Array.from({ length: 63 }, () => least), 1],
    [most, -most, 0, most / 2],
    [...Array.from({ length: 64 }, () => most), ...Array.from({ length: 64 }, () => 0)],
  ]) {
    const wanted = Float32Array.from(values);
    for (const form of ["nf4", "nf4-double"] as const) {
      const read = readNf4(form, wanted.length, written(form, wanted));
      const largest = wanted.reduce((all, each) => Math.max(all, Math.abs(each)), 0);
      wanted.forEach((value, i) => {
        const difference = Math.abs((read[i] as number) - value);
        // A shorter block divides by 1e-38 at least, and 8 bits of a scale are good to a hundredth.
        assert.ok(difference <= 0.16 * largest + 1e-38, `${form}: ${read[i]} for ${value}`);
      });
    }
  }
});

test("an element that is no finite number is refused by its tensor, wherever it stands", () => {
  for (const value of [Number.NaN, Infinity, -Infinity]) {
    for (const [size, at] of [
      [1, 0],
      [64, 63],
      [130, 129],
      [20_000, 17_000],
    ] as const) {
      const values = new Float32Array(size).fill(2);
      values[at] = value;
      assert.throws(() => written("nf4", values), {
        code: "E_TENSOR_NOT_FINITE",
        message: new RegExp(`the tensor w holds ${value}`),
      });
    }
  }
});
