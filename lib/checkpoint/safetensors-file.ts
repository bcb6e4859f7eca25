import { bfloat16ToFloat32, float16ToFloat32 } from "#lib/core/bf16";
import { LockstepError } from "#lib/core/errors/index";
import { type ByteReader, FileReader } from "./file-reader.js";
import { conversionChunkBytes } from "./limits.js";
import {
  headerLengthBytes,
  parseHeaderLength,
  parseSafetensorsHeader,
  type StoredTensor,
  storedDtypeBytes,
} from "./safetensors-header.js";

/** A part of a tensor in row-major order. */
export interface ElementSpan {
  readonly start: number;
  readonly count: number;
}

/** An open safetensors file: its header is checked and in memory, its tensors are read on demand. */
export class SafetensorsFile {
  readonly file: string;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #reader: ByteReader;

  private constructor(
    reader: ByteReader,
    tensors: ReadonlyMap<string, StoredTensor>,
    metadata: Readonly<Record<string, string>>,
  ) {
    this.file = reader.file;
    this.#reader = reader;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  static async open(file: string): Promise<SafetensorsFile> {
    return SafetensorsFile.over(await FileReader.open(file, "weights file"));
  }

  /** @param reader closed with the file, or where it is none */
  static async over(reader: ByteReader): Promise<SafetensorsFile> {
    const { file } = reader;
    try {
      const prefix = await reader.read(0, Math.min(headerLengthBytes, reader.sizeBytes));
      const headerBytes = parseHeaderLength(file, prefix, reader.sizeBytes);
      const header = parseSafetensorsHeader(
        file,
        await reader.read(headerLengthBytes, headerBytes),
        reader.sizeBytes,
      );
      return new SafetensorsFile(reader, header.tensors, header.metadata);
    } catch (error) {
      await reader.close();
      throw error;
    }
  }

  info(name: string): StoredTensor {
    const tensor = this.tensors.get(name);
    if (tensor !== undefined) return tensor;
    throw new LockstepError("E_TENSOR_MISSING", { where: this.file, tensor: name });
  }

  /** The tensor's bytes as stored (little-endian, row-major). */
  async readBytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const tensor = this.info(name);
    return this.#reader.read(tensor.offset, tensor.sizeBytes);
  }

  /** Fills `into` with the tensor's bytes as stored, from byte `offset` of it on. */
  async readBytesInto(name: string, into: Uint8Array, offset: number): Promise<void> {
    await this.#reader.readInto(into, this.info(name).offset + offset);
  }

  /**
   * The tensor's elements, or those of `span`, as float32; F32, BF16 and F16 are accepted.
   * `into` may be longer than needed and may lie on a SharedArrayBuffer; its prefix is filled and
   * returned. Beyond the result, at most one conversion chunk of memory is taken.
   */
  async readFloat32(name: string, into?: Float32Array, span?: ElementSpan): Promise<Float32Array> {
    const tensor = this.info(name);
    const { start, count } = span ?? { start: 0, count: tensor.numElements };
    if (start < 0 || count < 0 || start + count > tensor.numElements) {
      throw new LockstepError("E_TENSOR_SIZE", {
        where: this.file,
        tensor: name,
        expected: tensor.numElements,
        actual: start + count,
        unit: "elements",
      });
    }
    if (into !== undefined && into.length < count) {
      throw new LockstepError("E_TENSOR_SIZE", {
        where: this.file,
        tensor: name,
        expected: count,
        actual: into.length,
        unit: "elements",
      });
    }
    const output = into === undefined ? new Float32Array(count) : into.subarray(0, count);
    switch (tensor.dtype) {
      case "F32":
        await this.#reader.readInto(
          new Uint8Array(output.buffer, output.byteOffset, output.byteLength),
          tensor.offset + start * 4,
        );
        return output;
      case "BF16":
        await this.#readHalves(tensor, start, output, bfloat16ToFloat32);
        return output;
      case "F16":
        await this.#readHalves(tensor, start, output, float16ToFloat32);
        return output;
      default:
        throw new LockstepError("E_TENSOR_DTYPE", {
          where: this.file,
          tensor: name,
          dtype: tensor.dtype,
          supported: "F32, BF16, F16",
        });
    }
  }

  async #readHalves(
    tensor: StoredTensor,
    start: number,
    output: Float32Array,
    widen: (bits: Uint16Array, output: Float32Array) => Float32Array,
  ): Promise<void> {
    const chunkElements = conversionChunkBytes / storedDtypeBytes[tensor.dtype];
    const halves = new Uint16Array(Math.min(chunkElements, output.length));
    for (let done = 0; done < output.length; done += chunkElements) {
      const part = halves.subarray(0, Math.min(chunkElements, output.length - done));
      await this.#reader.readInto(
        new Uint8Array(part.buffer, 0, part.byteLength),
        tensor.offset + (start + done) * 2,
      );
      widen(part, output.subarray(done, done + part.length));
    }
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }
}

export function openSafetensors(file: string): Promise<SafetensorsFile> {
  return SafetensorsFile.open(file);
}
