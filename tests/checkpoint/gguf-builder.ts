/** Writes GGUF bytes piece by piece, as wrong as a test wants them. */
export class GgufBuilder {
  readonly #parts: Buffer[] = [];

  bytes(...values: number[]): this {
    this.#parts.push(Buffer.from(values));
    return this;
  }

  uint32(value: number): this {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    this.#parts.push(part);
    return this;
  }

  uint64(value: number | bigint): this {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    this.#parts.push(part);
    return this;
  }

  string(value: string): this {
    this.uint64(Buffer.byteLength(value));
    this.#parts.push(Buffer.from(value));
    return this;
  }

  /** Magic, version 3 and the two counts. */
  preamble(numTensors: number | bigint, numEntries: number | bigint, version = 3): this {
    this.#parts.push(Buffer.from("GGUF"));
    return this.uint32(version).uint64(numTensors).uint64(numEntries);
  }

  tensor(
    name: string,
    dims: readonly (number | bigint)[],
    type: number,
    offset: number | bigint,
  ): this {
    this.string(name).uint32(dims.length);
    for (const dim of dims) this.uint64(dim);
    return this.uint32(type).uint64(offset);
  }

  /** Everything so far, padded to the start of the data section, and `dataBytes` zeros. */
  build(dataBytes = 0): Buffer {
    const header = Buffer.concat(this.#parts);
    if (dataBytes === 0) return header;
    return Buffer.concat([
      header,
      Buffer.alloc(Math.ceil(header.length / 32) * 32 - header.length + dataBytes),
    ]);
  }
}
