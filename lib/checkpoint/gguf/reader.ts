import { LockstepError } from "#lib/core/errors/index";
import { FileReader } from "#lib/checkpoint/file-reader";
import {
  maxGgufAlignmentBytes,
  maxGgufArrayElements,
  maxGgufHeaderBytes,
  maxGgufMetadataEntries,
  maxGgufStringBytes,
  maxTensorNameLength,
  maxTensorsPerFile,
} from "#lib/checkpoint/limits";
import { ByteCursor } from "./cursor.js";
import { tensorTypeName, tensorTypes } from "./tensor-types.js";

/** A metadata value; numbers beyond 2^53 stay bigint. */
export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

export interface GgufTensor {
  readonly name: string;
  /** Row-major, outermost dimension first (GGUF itself writes the innermost first). */
  readonly shape: readonly number[];
  readonly type: string;
  /** First byte in the file. */
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Value type codes of GGUF metadata. */
const valueTypes = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

/** Fewest bytes that a value of a type code takes; a string's is its length, an array's type and length. */
const minValueBytes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];

/** An open GGUF file: metadata and tensor directory are checked and in memory, data is read on demand. */
export class GgufFile {
  readonly file: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  readonly #reader: FileReader;

  private constructor(
    reader: FileReader,
    metadata: ReadonlyMap<string, GgufValue>,
    tensors: ReadonlyMap<string, GgufTensor>,
  ) {
    this.file = reader.file;
    this.#reader = reader;
    this.metadata = metadata;
    this.tensors = tensors;
  }

  static async open(file: string): Promise<GgufFile> {
    const reader = await FileReader.open(file, "GGUF file");
    try {
      const cursor = new ByteCursor(reader, maxGgufHeaderBytes);
      const { numTensors, numEntries } = await readPreamble(cursor);
      const metadata = await readMetadata(cursor, numEntries);
      const tensors = await readTensorDirectory(cursor, numTensors, metadata);
      return new GgufFile(reader, metadata, tensors);
    } catch (error) {
      await reader.close();
      throw error;
    }
  }

  /** Fills `into` with the bytes of `tensor` from byte `start` of its data on. */
  async readTensorBytes(tensor: GgufTensor, start: number, into: Uint8Array): Promise<void> {
    await this.#reader.readInto(into, tensor.offset + start);
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }
}

async function readPreamble(
  cursor: ByteCursor,
): Promise<{ numTensors: number; numEntries: number }> {
  const magic = await cursor.uint32();
  // "GGUF" in little-endian order.
  if (magic !== 0x46554747) cursor.fail("it does not start with the letters GGUF", 0);
  const version = await cursor.uint32();
  if (version === 0x02000000 || version === 0x03000000) {
    cursor.fail("it is in big-endian byte order, which is not read", 4);
  }
  if (version !== 2 && version !== 3) {
    cursor.fail(`it has version ${version}; versions 2 and 3 are read`, 4);
  }
  const numTensors = await cursor.size("number of tensors", maxTensorsPerFile);
  const numEntries = await cursor.size("number of metadata entries", maxGgufMetadataEntries);
  return { numTensors, numEntries };
}

async function readMetadata(
  cursor: ByteCursor,
  numEntries: number,
): Promise<ReadonlyMap<string, GgufValue>> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < numEntries; i++) {
    const start = cursor.position;
    const key = await cursor.string("metadata key", maxTensorNameLength);
    if (metadata.has(key)) cursor.fail(`the metadata key "${key}" appears twice`, start);
    metadata.set(key, await readValue(cursor, await cursor.uint32(), key));
  }
  return metadata;
}

async function readValue(cursor: ByteCursor, type: number, key: string): Promise<GgufValue> {
  switch (type) {
    case valueTypes.uint8:
      return cursor.uint8();
    case valueTypes.int8:
      return ((await cursor.uint8()) << 24) >> 24;
    case valueTypes.uint16:
      return cursor.uint16();
    case valueTypes.int16:
      return ((await cursor.uint16()) << 16) >> 16;
    case valueTypes.uint32:
      return cursor.uint32();
    case valueTypes.int32:
      return (await cursor.uint32()) | 0;
    case valueTypes.float32:
      return cursor.float32();
    case valueTypes.bool:
      return (await cursor.uint8()) !== 0;
    case valueTypes.string:
      return cursor.string(`value of "${key}"`, maxGgufStringBytes);
    case valueTypes.array:
      return readArray(cursor, key);
    case valueTypes.uint64:
      return narrow(await cursor.uint64());
    case valueTypes.int64:
      return narrow(BigInt.asIntN(64, await cursor.uint64()));
    case valueTypes.float64:
      return cursor.float64();
    default:
      return cursor.fail(`the metadata key "${key}" has the unknown type code ${type}`);
  }
}

async function readArray(cursor: ByteCursor, key: string): Promise<readonly GgufValue[]> {
  const type = await cursor.uint32();
  if (type === valueTypes.array) cursor.fail(`"${key}" is an array of arrays, which is not read`);
  const elementBytes = minValueBytes[type];
  if (elementBytes === undefined) {
    return cursor.fail(`the elements of "${key}" have the unknown type code ${type}`);
  }
  const count = await cursor.size(`length of "${key}"`, maxGgufArrayElements);
  if (count * elementBytes > cursor.remainingBytes) {
    cursor.fail(
      `"${key}" claims ${count} elements, but only ${cursor.remainingBytes} bytes are left`,
    );
  }
  const values: GgufValue[] = [];
  for (let i = 0; i < count; i++) {
    // Most elements lie in the window already; awaiting each would make 100,000 turns of the loop.
    const ready = type === valueTypes.string ? cursor.stringNow(maxGgufStringBytes) : undefined;
    values.push(ready ?? (await readValue(cursor, type, key)));
  }
  return values;
}

async function readTensorDirectory(
  cursor: ByteCursor,
  numTensors: number,
  metadata: ReadonlyMap<string, GgufValue>,
): Promise<ReadonlyMap<string, GgufTensor>> {
  const alignment = metadata.get("general.alignment") ?? 32;
  const isPowerOfTwo =
    typeof alignment === "number" && alignment > 0 && Number.isInteger(Math.log2(alignment));
  if (!isPowerOfTwo || alignment > maxGgufAlignmentBytes) {
    return cursor.fail(
      `general.alignment is ${String(alignment)}, not a power of two up to ${maxGgufAlignmentBytes}`,
    );
  }
  const declared = new Map<string, { tensor: GgufTensor; at: number }>();
  for (let i = 0; i < numTensors; i++) {
    const at = cursor.position;
    const tensor = await readTensorInfo(cursor, alignment);
    if (declared.has(tensor.name)) {
      throw new LockstepError("E_DUPLICATE_TENSOR", { where: cursor.file, tensor: tensor.name });
    }
    declared.set(tensor.name, { tensor, at });
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const placed = [...declared.values()].map(({ tensor, at }) => ({
    at,
    tensor: { ...tensor, offset: dataStart + tensor.offset },
  }));
  placed.sort((a, b) => a.tensor.offset - b.tensor.offset);
  let end = dataStart;
  for (const { tensor, at } of placed) {
    if (tensor.offset < end) cursor.fail(`tensor "${tensor.name}" overlaps another`, at);
    end = tensor.offset + tensor.sizeBytes;
    if (end > cursor.fileBytes) {
      cursor.fail(
        `tensor "${tensor.name}" ends at byte ${end}, but the file has ${cursor.fileBytes}`,
        at,
      );
    }
  }
  return new Map(placed.map(({ tensor }) => [tensor.name, Object.freeze(tensor)]));
}

/** One entry of the tensor directory; its offset is still relative to the data section. */
async function readTensorInfo(cursor: ByteCursor, alignment: number): Promise<GgufTensor> {
  const name = await cursor.string("tensor name", maxTensorNameLength);
  const rank = await cursor.uint32();
  if (rank < 1 || rank > 4) cursor.fail(`tensor "${name}" has ${rank} dimensions, not 1 to 4`);
  const shape: number[] = [];
  let numElements = 1;
  for (let d = 0; d < rank; d++) {
    const dim = await cursor.size(`a dimension of tensor "${name}"`, Number.MAX_SAFE_INTEGER);
    numElements *= dim;
    if (dim === 0 || !Number.isSafeInteger(numElements)) {
      cursor.fail(`the dimensions of tensor "${name}" have no sensible product`);
    }
    shape.unshift(dim);
  }
  const typeCode = await cursor.uint32();
  const type = tensorTypeName(typeCode);
  const layout = tensorTypes[type];
  if (layout === undefined) {
    throw new LockstepError("E_GGUF_TENSOR_TYPE", {
      file: cursor.file,
      tensor: name,
      type,
      supported: Object.keys(tensorTypes).join(", "),
    });
  }
  const rowElements = shape.at(-1) as number;
  if (rowElements % layout.blockElements !== 0) {
    cursor.fail(
      `rows of ${rowElements} elements of tensor "${name}" are no whole blocks of ${type}`,
    );
  }
  const offset = await cursor.size(`offset of tensor "${name}"`, Number.MAX_SAFE_INTEGER / 4);
  if (offset % alignment !== 0) cursor.fail(`the offset of tensor "${name}" is not aligned`);
  const sizeBytes = (numElements / layout.blockElements) * layout.blockBytes;
  return { name, shape: Object.freeze(shape), type, offset, sizeBytes };
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
