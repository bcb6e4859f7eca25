/** Structs deeper than a Parquet file's metadata ever has them. */
const maxDepth = 32;
/** Structs in one message: each becomes objects of some hundred bytes in memory. */
const maxStructs = 2 * 2 ** 20;

/** Kinds of values in Thrift's compact protocol. */
const stop = 0;
const yes = 1;
const no = 2;
const byte = 3;
const i16 = 4;
const i32 = 5;
const i64 = 6;
const double = 7;
const binary = 8;
const list = 9;
const struct = 12;

const maxVarint32Bytes = 5;
const maxVarint64Bytes = 10;

/** Gets each number and truth value that stands in structs alone, with its path of field numbers: "5.1". */
type OnInteger = (path: string, value: number) => void;

/**
 * Walks a struct of Thrift's compact protocol without making anything of the sizes that it names: lists and texts
 * fit into the bytes that are there, and no field of a struct comes twice.
 *
 * @param onInteger gets NaN for numbers of 64 bits
 * @returns the offset behind the struct
 * @throws Error
 */
export function scanStruct(bytes: Uint8Array, start: number, onInteger?: OnInteger): number {
  const scan = new Scan(bytes, start);
  scan.readStruct(0, "", onInteger);
  return scan.offset;
}

/**
 * The offset behind a number of at most so many bytes, each with seven of its bits.
 *
 * @throws Error
 */
export function endOfVarint(bytes: Uint8Array, start: number, maxBytes: number): number {
  for (let at = start; at < Math.min(bytes.length, start + maxBytes); at++) {
    if (((bytes[at] ?? 0) & 0x80) === 0) return at + 1;
  }
  throw new Error(`at byte ${start} a number ends nowhere`);
}

/** A number of 32 bits without a sign, and the offset behind it. @throws Error */
export function readVarint(
  bytes: Uint8Array,
  start: number,
): { readonly value: number; readonly end: number } {
  const end = endOfVarint(bytes, start, maxVarint32Bytes);
  let value = 0;
  for (let at = start; at < end; at++) value |= ((bytes[at] ?? 0) & 0x7f) << (7 * (at - start));
  return { value: value >>> 0, end };
}

class Scan {
  #numStructs = 0;
  #numItems = 0;

  readonly bytes: Uint8Array;
  offset: number;

  constructor(bytes: Uint8Array, start: number) {
    this.bytes = bytes;
    this.offset = start;
  }

  readStruct(depth: number, path: string, onInteger: OnInteger | undefined): void {
    if (depth > maxDepth) throw new Error(`its metadata is nested deeper than ${maxDepth} structs`);
    if (++this.#numStructs > maxStructs) {
      throw new Error(`its metadata has more than ${maxStructs} structs`);
    }
    let field = 0;
    let seen = 0;
    for (;;) {
      const head = this.#byte();
      const kind = head & 15;
      if (kind === stop) return;
      const step = head >> 4;
      field = step > 0 ? field + step : this.#integer();
      const bit = field > 0 && field < 32 ? 1 << (field - 1) : 0;
      if ((seen & bit) !== 0) throw new Error(`field ${field} of its metadata comes twice`);
      seen |= bit;
      this.#readValue(kind, depth, onInteger && `${path}${field}`, onInteger);
    }
  }

  #readValue(
    kind: number,
    depth: number,
    path: string | undefined,
    onInteger: OnInteger | undefined,
  ): void {
    const found = (value: number): void => {
      if (path !== undefined) onInteger?.(path, value);
    };
    switch (kind) {
      case yes:
      case no:
        found(kind === yes ? 1 : 0);
        break;
      case byte:
        found(this.#byte());
        break;
      case i16:
      case i32:
        found(this.#integer());
        break;
      case i64:
        this.offset = endOfVarint(this.bytes, this.offset, maxVarint64Bytes);
        found(Number.NaN);
        break;
      case double:
        this.#skip(8);
        break;
      case binary:
        this.#skip(this.#unsigned());
        break;
      case list:
        this.#readList(depth);
        break;
      case struct:
        this.readStruct(depth + 1, path === undefined ? "" : `${path}.`, onInteger);
        break;
      default:
        throw new Error(`its metadata has a value of the unknown kind ${kind}`);
    }
  }

  #readList(depth: number): void {
    if (depth > maxDepth) throw new Error(`its metadata is nested deeper than ${maxDepth} structs`);
    const head = this.#byte();
    const kind = head & 15;
    const size = head >> 4 === 15 ? this.#unsigned() : head >> 4;
    // Each item takes a byte at least, those of inner lists too.
    this.#numItems += size;
    if (size > this.bytes.length - this.offset || this.#numItems > this.bytes.length) {
      throw new Error(
        `its metadata claims a list of ${size} items in ${this.bytes.length - this.offset} bytes`,
      );
    }
    for (let i = 0; i < size; i++) {
      if (kind === yes || kind === no) this.#skip(1);
      else this.#readValue(kind, depth + 1, undefined, undefined);
    }
  }

  #byte(): number {
    const value = this.bytes[this.offset];
    if (value === undefined) throw new Error("its metadata ends early");
    this.offset++;
    return value;
  }

  #unsigned(): number {
    const { value, end } = readVarint(this.bytes, this.offset);
    this.offset = end;
    return value;
  }

  #integer(): number {
    const zigzag = this.#unsigned();
    return (zigzag >>> 1) ^ -(zigzag & 1);
  }

  #skip(numBytes: number): void {
    const left = this.bytes.length - this.offset;
    if (numBytes > left) throw new Error(`its metadata claims ${numBytes} bytes where ${left} are`);
    this.offset += numBytes;
  }
}
