import { checkRuns, checkValues } from "./parquet-encodings.js";
import { maxPageBytes } from "./parquet-pages.js";
import type { ColumnShape } from "./parquet-schema.js";
import { scanStruct } from "./thrift.js";

/** Values of a page: writers have some ten thousand. JavaScript keeps longer arrays in another, larger way. */
const maxPageValues = 16 * 2 ** 20;
/** What a decoded row group takes in memory, of which a value is the least part in columns of lists. */
export const maxDecodedBytes = 2 ** 30;
const bytesPerRow = 64;
const bytesPerValue = 16;
const bytesPerArray = 160;

/** Kinds of pages. */
const dataPage = 0;
const dictionaryPage = 2;
const dataPageV2 = 3;

/** What the pages of a row group may take together. */
interface GroupLimits {
  /** @throws LockstepError */
  takePageBytes(numBytes: number): void;
  /** @throws LockstepError */
  takeDecodedBytes(numBytes: number): void;
}

/** A column of values of a row group. */
interface ColumnChunk {
  readonly type: string;
  readonly shape: ColumnShape;
  readonly numRows: number;
}

/** A page between its header and its values. */
interface Page {
  readonly kind: number;
  readonly encoding: number;
  /** Values that it names, nulls among them. */
  readonly numValues: number;
  /** Of the second kind of pages, whose levels stand before the compressed bytes. */
  readonly numNulls: number;
  readonly compressed: boolean;
  /** Its values, with the levels of the first kind of pages. */
  readonly body: Uint8Array;
}

type Fields = ReadonlyMap<string, number>;

/** Bytes of memory that rows take beside their values. */
export const rowBytes = (numRows: number, columns: readonly ColumnShape[]): number =>
  columns.reduce((sum, { numArraysPerRow }) => sum + numArraysPerRow * bytesPerArray, bytesPerRow) *
  numRows;

/**
 * Walks the headers of a column's pages, before anything of the sizes that they name is made.
 *
 * @param bytes all pages of the column, compressed
 * @returns checks each page's content once it is decompressed, in the order of the pages; a decoder of pages calls it
 * @throws Error, LockstepError
 */
export function checkPages(
  bytes: Uint8Array,
  column: ColumnChunk,
  limits: GroupLimits,
): (content: Uint8Array) => void {
  const { shape, numRows } = column;
  const compressed: Page[] = [];
  let numValues = 0;
  let at = 0;
  while (at < bytes.length - 1 && !(shape.isFlat && numValues >= numRows)) {
    const fields = new Map<string, number>();
    at = scanStruct(bytes, at, (path, value) => fields.set(path, value));
    const numBytes = count(fields, "3", "a page of compressed bytes", bytes.length - at);
    const page = readPage(fields, bytes.subarray(at, at + numBytes), column);
    at += numBytes;
    limits.takePageBytes(count(fields, "2", "a page of bytes", maxPageBytes));
    const perArray = page.kind === dictionaryPage ? 0 : shape.numArraysPerValue * bytesPerArray;
    limits.takeDecodedBytes(page.numValues * (bytesPerValue + perArray));
    if (page.kind !== dictionaryPage) numValues += page.numValues;
    if (page.compressed) compressed.push(page);
    else checkContent(page.body, page, column);
  }
  if (numValues < numRows) throw new Error(`it has ${numValues} values for ${numRows} rows`);
  let next = 0;
  return (content) => {
    const page = compressed[next++];
    if (page === undefined) throw new Error("it has more pages than were looked at");
    checkContent(content, page, column);
  };
}

function readPage(fields: Fields, body: Uint8Array, column: ColumnChunk): Page {
  const kind = fields.get("1") ?? -1;
  const values = (path: string): number => count(fields, path, "a page of values", maxPageValues);
  if (kind === dataPage) {
    const encoding = fields.get("5.2") ?? -1;
    return { kind, encoding, numValues: values("5.1"), numNulls: 0, compressed: true, body };
  }
  if (kind === dictionaryPage) {
    return { kind, encoding: 0, numValues: values("7.1"), numNulls: 0, compressed: true, body };
  }
  if (kind !== dataPageV2) throw new Error(`it has a page of the unknown kind ${kind}`);
  const numValues = values("8.1");
  const definitions = count(fields, "8.5", "definition levels of bytes", body.length);
  const repetitions = count(fields, "8.6", "repetition levels of bytes", body.length - definitions);
  const { maxRepetitionLevel, maxDefinitionLevel } = column.shape;
  count(fields, "8.3", "a page of rows", numValues);
  checkLevels(body, 0, maxRepetitionLevel, numValues);
  checkLevels(body, repetitions, maxDefinitionLevel, numValues);
  return {
    kind,
    encoding: fields.get("8.4") ?? -1,
    numValues,
    numNulls: count(fields, "8.2", "a page of nulls", numValues),
    compressed: fields.get("8.7") !== 0,
    body: body.subarray(definitions + repetitions),
  };
}

function checkContent(bytes: Uint8Array, page: Page, { type, shape }: ColumnChunk): void {
  const { kind, encoding, numValues } = page;
  let at = 0;
  let numNulls = page.numNulls;
  if (kind === dataPage) {
    if (shape.maxRepetitionLevel > 0) {
      at = endOfLevels(bytes, at);
      checkLevels(bytes, 4, shape.maxRepetitionLevel, numValues);
    }
    if (shape.maxDefinitionLevel > 0) {
      const start = at + 4;
      at = endOfLevels(bytes, at);
      numNulls = numValues - checkLevels(bytes, start, shape.maxDefinitionLevel, numValues);
    }
  }
  checkValues(bytes, at, {
    encoding,
    type,
    typeLength: shape.typeLength,
    numValues: numValues - numNulls,
    isV2: kind === dataPageV2,
    maxTextBytes: maxPageBytes,
  });
}

/** How many values are there and not null. */
const checkLevels = (bytes: Uint8Array, start: number, max: number, numValues: number): number =>
  max > 0 ? checkRuns(bytes, start, 32 - Math.clz32(max), numValues, max) : numValues;

function endOfLevels(bytes: Uint8Array, start: number): number {
  if (start + 4 > bytes.length) throw new Error("a page ends before its levels");
  const numBytes = new DataView(bytes.buffer, bytes.byteOffset + start).getUint32(0, true);
  if (numBytes <= bytes.length - start - 4) return start + 4 + numBytes;
  throw new Error(
    `a page claims levels of ${numBytes} bytes where ${bytes.length - start - 4} are`,
  );
}

function count(fields: Fields, path: string, what: string, max: number): number {
  const value = fields.get(path) ?? Number.NaN;
  if (Number.isSafeInteger(value) && value >= 0 && value <= max) return value;
  throw new Error(`it claims ${what}: ${value}, where at most ${max} are possible`);
}
