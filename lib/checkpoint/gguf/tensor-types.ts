import { encodeElements } from "#lib/checkpoint/elements";
import { bfloat16ToFloat32, float16ToFloat32 } from "#lib/core/bf16";
import { encodeQ8_0 } from "./q8-0.js";

/**
 * Storage forms of GGUF tensors, after ggml's `ggml-common.h`. A row is cut into blocks of
 * `blockElements`; `decode` turns whole blocks into float32. The products and sums are exact in
 * double precision, so a value equals ggml's own float32 arithmetic to the bit.
 */
export interface TensorType {
  readonly blockElements: number;
  readonly blockBytes: number;
  readonly decode: (bytes: Uint8Array<ArrayBuffer>, output: Float32Array) => void;
  /**
   * Whole blocks of float32 as bytes, in pieces of which each is valid until the next is asked for; absent
   * where a type is only read.
   *
   * @throws E_TENSOR_RANGE
   */
  readonly encode?: (values: Float32Array, tensor: string) => Iterable<Uint8Array>;
}

export const tensorTypes: Readonly<Record<string, TensorType>> = Object.freeze({
  F32: {
    ...{ blockElements: 1, blockBytes: 4, decode: decodeFloat32 },
    encode: (values: Float32Array, tensor: string) => encodeElements(values, "float32", tensor),
  },
  F16: {
    blockElements: 1,
    blockBytes: 2,
    decode: (bytes: Uint8Array<ArrayBuffer>, output: Float32Array) => {
      float16ToFloat32(halvesOf(bytes), output);
    },
    encode: (values: Float32Array, tensor: string) => encodeElements(values, "float16", tensor),
  },
  BF16: {
    blockElements: 1,
    blockBytes: 2,
    decode: (bytes: Uint8Array<ArrayBuffer>, output: Float32Array) => {
      bfloat16ToFloat32(halvesOf(bytes), output);
    },
    encode: (values: Float32Array, tensor: string) => encodeElements(values, "bfloat16", tensor),
  },
  Q8_0: { blockElements: 32, blockBytes: 34, decode: decodeQ8_0, encode: encodeQ8_0 },
  Q4_0: { blockElements: 32, blockBytes: 18, decode: decodeQ4_0 },
  Q4_1: { blockElements: 32, blockBytes: 20, decode: decodeQ4_1 },
});

/** ggml's type codes; those missing in `tensorTypes` are known by name only. */
const typeNames: Readonly<Record<number, string>> = Object.freeze({
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  8: "Q8_0",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  30: "BF16",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
});

export function tensorTypeName(code: number): string {
  return typeNames[code] ?? `type ${code}`;
}

/** The code of a type of tensorTypes. */
export function tensorTypeCode(type: string): number {
  const found = Object.entries(typeNames).find(([, name]) => name === type);
  if (found === undefined) throw new RangeError(`ggml has no type ${type}`);
  return Number(found[0]);
}

function halvesOf(bytes: Uint8Array<ArrayBuffer>): Uint16Array {
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
}

function decodeFloat32(bytes: Uint8Array<ArrayBuffer>, output: Float32Array): void {
  new Uint8Array(output.buffer, output.byteOffset, output.byteLength).set(bytes);
}

const scaleBits = new Uint16Array(1);
const scaleValue = new Float32Array(1);

/** The float16 at byte `at`; a block's size is even, but need not be a multiple of four. */
function float16At(bytes: Uint8Array, at: number): number {
  scaleBits[0] = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
  return float16ToFloat32(scaleBits, scaleValue)[0] as number;
}

/** Block: float16 scale d, then 32 int8 q; value d * q. */
function decodeQ8_0(bytes: Uint8Array, output: Float32Array): void {
  for (let at = 0, i = 0; at < bytes.byteLength; at += 34, i += 32) {
    const scale = float16At(bytes, at);
    for (let j = 0; j < 32; j++) {
      output[i + j] = scale * (((bytes[at + 2 + j] as number) << 24) >> 24);
    }
  }
}

/** Block: float16 scale d, then 16 bytes whose low halves are q[0..15], high halves q[16..31]; d * (q - 8). */
function decodeQ4_0(bytes: Uint8Array, output: Float32Array): void {
  for (let at = 0, i = 0; at < bytes.byteLength; at += 18, i += 32) {
    const scale = float16At(bytes, at);
    for (let j = 0; j < 16; j++) {
      const pair = bytes[at + 2 + j] as number;
      output[i + j] = scale * ((pair & 15) - 8);
      output[i + 16 + j] = scale * ((pair >>> 4) - 8);
    }
  }
}

/** Block: float16 scale d, float16 minimum m, then 16 bytes as in Q4_0; value d * q + m. */
function decodeQ4_1(bytes: Uint8Array, output: Float32Array): void {
  for (let at = 0, i = 0; at < bytes.byteLength; at += 20, i += 32) {
    const scale = float16At(bytes, at);
    const minimum = float16At(bytes, at + 2);
    for (let j = 0; j < 16; j++) {
      const pair = bytes[at + 4 + j] as number;
      output[i + j] = scale * (pair & 15) + minimum;
      output[i + 16 + j] = scale * (pair >>> 4) + minimum;
    }
  }
}
