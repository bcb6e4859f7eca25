import { open } from "node:fs/promises";
import { writeAll } from "#lib/checkpoint/write-all";
import { LockstepError } from "#lib/core/errors/index";
import { tensorTypeCode, tensorTypes } from "./tensor-types.js";

/** A value of metadata with the type that it is written in. */
export type GgufMetadataValue =
  | { readonly type: "uint32"; readonly value: number }
  | { readonly type: "float32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "float32s"; readonly value: readonly number[] }
  | { readonly type: "int32s"; readonly value: readonly number[] };

interface GgufTensorEntry {
  readonly name: string;
  /** Row-major, outermost dimension first. */
  readonly shape: readonly number[];
  /** A key of tensorTypes that rows of this shape have whole blocks of. */
  readonly type: string;
}

interface GgufContent {
  readonly metadata: Readonly<Record<string, GgufMetadataValue>>;
  readonly tensors: readonly GgufTensorEntry[];
  /** A tensor's elements, float32, row-major; called once each, in order. */
  readonly read: (name: string) => Promise<Float32Array>;
}

/** Bytes to which tensors are aligned where `general.alignment` says nothing else. */
const alignmentBytes = 32;
const version = 3;
/** Type codes of metadata. */
const codes = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9 } as const;

/**
 * Writes a GGUF file, version 3, and fsyncs it. One tensor is in memory at a time.
 *
 * @throws E_TENSOR_SIZE where `read` gives other than the declared elements, E_TENSOR_RANGE
 */
export async function writeGguf(
  file: string,
  { metadata, tensors, read }: GgufContent,
): Promise<void> {
  const handle = await open(file, "w");
  try {
    let position = await writeAll(handle, encodeHeader(metadata, tensors), 0);
    for (const { name, shape, type } of tensors) {
      position = await writeAll(handle, padding(position), position);
      const values = await read(name);
      const expected = shape.reduce((product, dim) => product * dim, 1);
      if (values.length !== expected) {
        const sizes = { expected, actual: values.length, unit: "elements" } as const;
        throw new LockstepError("E_TENSOR_SIZE", { where: file, tensor: name, ...sizes });
      }
      for (const piece of tensorTypes[type]?.encode?.(values, name) ?? []) {
        position = await writeAll(handle, piece, position);
      }
    }
    // llama.cpp reads whole aligned blocks, the last one too.
    await writeAll(handle, padding(position), position);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Bytes of a tensor of a type. */
function sizeBytes({ shape, type }: GgufTensorEntry): number {
  const { blockElements, blockBytes } = tensorTypes[type] as (typeof tensorTypes)[string];
  return (shape.reduce((product, dim) => product * dim, 1) / blockElements) * blockBytes;
}

const aligned = (position: number): number => Math.ceil(position / alignmentBytes) * alignmentBytes;

const padding = (position: number): Uint8Array => new Uint8Array(aligned(position) - position);

/** Magic, metadata and the directory of tensors, padded to where the first one begins. */
function encodeHeader(
  metadata: GgufContent["metadata"],
  tensors: readonly GgufTensorEntry[],
): Uint8Array {
  const parts: Buffer[] = [
    Buffer.from("GGUF"),
    uint32Bytes(version),
    uint64Bytes(tensors.length),
    uint64Bytes(Object.keys(metadata).length),
  ];
  for (const [key, value] of Object.entries(metadata)) {
    parts.push(stringBytes(key), ...valueBytes(value));
  }
  let offset = 0;
  for (const entry of tensors) {
    parts.push(stringBytes(entry.name), uint32Bytes(entry.shape.length));
    parts.push(...[...entry.shape].reverse().map(uint64Bytes));
    parts.push(uint32Bytes(tensorTypeCode(entry.type)), uint64Bytes(offset));
    offset = aligned(offset + sizeBytes(entry));
  }
  const header = Buffer.concat(parts);
  return Buffer.concat([header, padding(header.byteLength)]);
}

function valueBytes(entry: GgufMetadataValue): Buffer[] {
  switch (entry.type) {
    case "uint32":
      return [uint32Bytes(codes.uint32), uint32Bytes(entry.value)];
    case "float32":
      return [uint32Bytes(codes.float32), float32Bytes([entry.value])];
    case "bool":
      return [uint32Bytes(codes.bool), Buffer.from([entry.value ? 1 : 0])];
    case "string":
      return [uint32Bytes(codes.string), stringBytes(entry.value)];
    case "strings":
      return [...arrayHead(codes.string, entry.value.length), ...entry.value.map(stringBytes)];
    case "float32s":
      return [...arrayHead(codes.float32, entry.value.length), float32Bytes(entry.value)];
    case "int32s": {
      const { buffer } = Int32Array.from(entry.value);
      return [...arrayHead(codes.int32, entry.value.length), Buffer.from(buffer)];
    }
  }
}

const arrayHead = (type: number, length: number): Buffer[] => [
  uint32Bytes(codes.array),
  uint32Bytes(type),
  uint64Bytes(length),
];

function uint32Bytes(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64Bytes(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

const float32Bytes = (values: readonly number[]): Buffer =>
  Buffer.from(Float32Array.from(values).buffer);

function stringBytes(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([uint64Bytes(bytes.byteLength), bytes]);
}
