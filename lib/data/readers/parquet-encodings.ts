import { deltaBinaryUnpack } from "hyparquet/src/delta.js";
import { endOfVarint, readVarint } from "./thrift.js";

/** Numbers of the format for the ways that the values of a page are written. */
const plain = 0;
const plainDictionary = 2;
const runLength = 3;
const deltaBinary = 5;
const deltaLength = 6;
const deltaBytes = 7;
const dictionary = 8;
const streamSplit = 9;

/** Writers have blocks of 128 to some thousand values. */
const maxDeltaBlock = 2 ** 20;
/** Bit-packed runs are filled up to eight values, and by some writers to whole buffers. */
const maxPaddingValues = 512;

/** Bytes that a value of each type takes at least. */
const plainBytes: Readonly<Record<string, number>> = {
  BOOLEAN: 1 / 8,
  INT32: 4,
  INT64: 8,
  INT96: 12,
  FLOAT: 4,
  DOUBLE: 8,
  BYTE_ARRAY: 4,
};

/** The values of a page, as its header and its column say that they are written. */
interface EncodedValues {
  readonly encoding: number;
  readonly type: string;
  readonly typeLength: number;
  readonly numValues: number;
  readonly isV2: boolean;
  /** Bytes that the texts of a page may take, of which each repeats the start of the one before it. */
  readonly maxTextBytes: number;
}

/**
 * Checks what the values of a page claim about themselves before they are decoded: the lengths of runs, of blocks
 * and of starts that texts share.
 *
 * @throws Error
 */
export function checkValues(bytes: Uint8Array, start: number, values: EncodedValues): void {
  const { encoding, type, numValues, isV2 } = values;
  switch (encoding) {
    case plain:
      checkPlain(bytes.length - start, values);
      break;
    case runLength:
    case plainDictionary:
    case dictionary:
      if (isV2 ? encoding === runLength : type === "BOOLEAN") {
        checkRuns(bytes, start + 4, 1, numValues);
      } else {
        const width = bytes[start] ?? 0;
        if (width > 32) throw new Error(`a page claims indices of ${width} bits; 32 is the most`);
        if (width > 0 || isV2) checkRuns(bytes, start + 1, width, numValues);
      }
      break;
    case deltaBinary:
    case deltaLength:
      checkDelta(bytes, start, numValues);
      break;
    case deltaBytes:
      checkSharedStarts(bytes, start, values);
      break;
    case streamSplit:
      checkPlain(bytes.length - start, values);
      break;
    default:
      break;
  }
}

function checkPlain(numBytes: number, { type, typeLength, numValues }: EncodedValues): void {
  const each = type === "FIXED_LEN_BYTE_ARRAY" ? Math.max(1, typeLength) : (plainBytes[type] ?? 0);
  if (Math.ceil(numValues * each) <= numBytes) return;
  throw new Error(`a page claims ${numValues} values of type ${type} in ${numBytes} bytes`);
}

/**
 * Walks runs: one value many times, or values bit by bit.
 *
 * @param equal counts the values that are equal to it
 * @throws Error where a run claims more values than are left
 */
export function checkRuns(
  bytes: Uint8Array,
  start: number,
  width: number,
  numValues: number,
  equal?: number,
): number {
  let numSeen = 0;
  let numEqual = 0;
  for (let at = start; numSeen < numValues; ) {
    const { value: header, end } = readVarint(bytes, at);
    const numLeft = numValues - numSeen;
    const isPacked = (header & 1) === 1;
    const numRun = isPacked ? (header >>> 1) * 8 : header >>> 1;
    if (numRun > numLeft + (isPacked ? maxPaddingValues : 0)) {
      throw new Error(
        `a run claims ${numRun} values where ${numLeft} of the page's ${numValues} are left`,
      );
    }
    if (isPacked) {
      if (equal !== undefined) {
        numEqual += countPacked(bytes, end, width, Math.min(numRun, numLeft), equal);
      }
      at = end + Math.max(1, (numRun / 8) * width);
    } else {
      at = end + ((width + 7) >> 3);
      if (valueAt(bytes, end, at) === equal) numEqual += numRun;
    }
    numSeen += numRun;
  }
  return numEqual;
}

function valueAt(bytes: Uint8Array, start: number, end: number): number {
  let value = 0;
  for (let i = start; i < end; i++) value |= (bytes[i] ?? 0) << ((i - start) << 3);
  return value;
}

function countPacked(
  bytes: Uint8Array,
  start: number,
  width: number,
  numValues: number,
  equal: number,
): number {
  const mask = (1 << width) - 1;
  let numEqual = 0;
  for (let i = 0, bit = start * 8; i < numValues; i++, bit += width) {
    const at = bit >> 3;
    const word = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16);
    if (((word >> (bit & 7)) & mask) === equal) numEqual++;
  }
  return numEqual;
}

/**
 * Walks numbers that are written as differences, in blocks.
 *
 * @throws Error
 */
function checkDelta(bytes: Uint8Array, start: number, numValues: number): void {
  const block = readVarint(bytes, start);
  const parts = readVarint(bytes, block.end);
  const count = readVarint(bytes, parts.end);
  const each = block.value / parts.value;
  if (block.value > maxDeltaBlock || !Number.isInteger(each) || each === 0 || each % 8 !== 0) {
    throw new Error(
      `a page claims blocks of ${block.value} differences in ${parts.value} parts; at most ${maxDeltaBlock} are read, in parts of eight`,
    );
  }
  if (count.value !== numValues) {
    throw new Error(`a page claims ${count.value} differences for ${numValues} values`);
  }
  let at = endOfVarint(bytes, count.end, 10);
  for (let numSeen = 1; numSeen < numValues; ) {
    const widths = endOfVarint(bytes, at, 10);
    at = widths + parts.value;
    for (let i = 0; i < parts.value && numSeen < numValues; i++, numSeen += each) {
      const width = bytes[widths + i];
      if (width === undefined) throw new Error("a page of differences ends early");
      if (width > 64) throw new Error(`a page claims differences of ${width} bits`);
      at += (each / 8) * width;
    }
  }
}

/** Texts of which each names how much of the one before it is its start. @throws Error */
function checkSharedStarts(bytes: Uint8Array, start: number, values: EncodedValues): void {
  const { numValues, maxTextBytes } = values;
  const reader = {
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    offset: start,
  };
  const [starts, ends] = [new Int32Array(numValues), new Int32Array(numValues)];
  for (const lengths of [starts, ends]) {
    checkDelta(bytes, reader.offset, numValues);
    deltaBinaryUnpack(reader, numValues, lengths);
  }
  let previous = 0;
  let numBytes = 0;
  for (let i = 0; i < numValues; i++) {
    const [shared, own] = [starts[i] ?? 0, ends[i] ?? 0];
    if (shared < 0 || own < 0 || shared > previous) {
      throw new Error(
        `a text claims ${shared} bytes of the one before it, which has ${previous}, and ${own} of its own`,
      );
    }
    previous = shared + own;
    numBytes += previous;
    if (numBytes > maxTextBytes) {
      throw new Error(
        `the texts of a page claim ${numBytes} bytes or more; at most ${maxTextBytes} are read`,
      );
    }
  }
}
