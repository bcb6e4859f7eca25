import { parquetMetadata, parquetSchema } from "hyparquet";
import { LockstepError } from "#lib/core/errors/index";
import { openRegularFile } from "#lib/core/regular-file";
import type { BadExamples } from "#lib/data/bad-examples";
import { isRecord } from "#lib/data/files";
import { FloatNumber, plainNumber } from "#lib/data/json-data";
import { checkRowGroups, maxRowGroupBytes, readRowGroup } from "./parquet-groups.js";
import { checkSchema, type SchemaNode } from "./parquet-schema.js";
import { maxColumns, type RawExample } from "./raw-example.js";
import { scanStruct } from "./thrift.js";

/** Schema and places of the column chunks: some KiB, with many row groups some MiB. */
export const maxFooterBytes = 16 * 2 ** 20;
const magic = "PAR1";
const tailBytes = 8;

/**
 * The rows of a Parquet file, a row group at a time.
 *
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_DATA_PARQUET, E_DATA_TOO_LARGE, E_DATA_TOO_MANY_COLUMNS
 */
export async function* readParquet(
  file: string,
  _badExamples: BadExamples,
): AsyncGenerator<RawExample> {
  const { handle, sizeBytes: size } = await openRegularFile(file, "data file");
  const invalid = (cause: unknown): LockstepError => {
    const problem = cause instanceof Error ? cause.message : String(cause);
    return new LockstepError("E_DATA_PARQUET", { file, problem }, { cause });
  };
  const tooLarge = (what: string, sizeBytes: number, limitBytes: number): LockstepError =>
    new LockstepError("E_DATA_TOO_LARGE", { file, what, sizeBytes, limitBytes });
  try {
    const read = async (start: number, end: number): Promise<ArrayBuffer> => {
      if (end - start > maxRowGroupBytes) {
        throw tooLarge("column chunk", end - start, maxRowGroupBytes);
      }
      const buffer = new ArrayBuffer(Math.max(0, end - start));
      const { bytesRead } = await handle.read(new Uint8Array(buffer), 0, end - start, start);
      if (bytesRead !== buffer.byteLength) throw invalid("it ends early");
      return buffer;
    };
    if (size < tailBytes + magic.length) throw invalid("it is too short");
    const tail = Buffer.from(await read(size - tailBytes, size));
    if (tail.toString("latin1", 4) !== magic) throw invalid(`it does not end in ${magic}`);
    const footerBytes = tail.readUInt32LE(0);
    if (footerBytes > maxFooterBytes) throw tooLarge("footer", footerBytes, maxFooterBytes);
    if (footerBytes > size - tailBytes) throw invalid("its footer is longer than the file");

    const footer = await read(size - tailBytes - footerBytes, size);
    const { metadata, root } = parseFooter(footer, footerBytes, file, invalid);
    const parquetFile = { dataBytes: size - tailBytes - footerBytes, read, invalid, tooLarge };
    checkRowGroups(parquetFile, metadata, root);
    const types = new Map(root.children.map((column) => [column.element.name, column]));
    let first = 0;
    for (const group of metadata.row_groups) {
      const rows = await readRowGroup(parquetFile, metadata, root, group);
      for (const [i, fields] of rows.entries()) {
        yield { place: `${file}: row ${first + i + 1}`, fields: typedFields(fields, types) };
      }
      first += rows.length;
    }
  } finally {
    await handle.close();
  }
}

/** @param footer the metadata, their length and the file's last bytes @throws LockstepError */
function parseFooter(
  footer: ArrayBuffer,
  numBytes: number,
  file: string,
  invalid: (cause: unknown) => LockstepError,
): { readonly metadata: ReturnType<typeof parquetMetadata>; readonly root: SchemaNode } {
  try {
    scanStruct(new Uint8Array(footer, 0, numBytes), 0);
    const metadata = parquetMetadata(footer);
    const numColumns = metadata.schema.length - 1;
    if (numColumns > maxColumns) {
      throw new LockstepError("E_DATA_TOO_MANY_COLUMNS", { file, numColumns, limit: maxColumns });
    }
    checkSchema(metadata.schema);
    return { metadata, root: parquetSchema(metadata) };
  } catch (cause) {
    throw cause instanceof LockstepError ? cause : invalid(cause);
  }
}

/** Fields with numbers of JavaScript; what is nested in them keeps its digits, and floats that they are floats. */
function typedFields(
  fields: Readonly<Record<string, unknown>>,
  types: ReadonlyMap<string, SchemaNode>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      plainNumber(typedValue(value, types.get(name))),
    ]),
  );
}

function typedValue(value: unknown, node: SchemaNode | undefined): unknown {
  if (typeof value === "bigint") {
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }
  if (typeof value === "number") {
    const isFloat = ["FLOAT", "DOUBLE"].includes(node?.element.type ?? "");
    return isFloat && Number.isInteger(value) ? new FloatNumber(value) : value;
  }
  if (Array.isArray(value)) {
    const item = listItem(node);
    return (value as unknown[]).map((each) => typedValue(each, item));
  }
  if (!isRecord(value) || Object.getPrototypeOf(value) !== Object.prototype) return value;
  const entry = mapValue(node);
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [
      name,
      typedValue(each, entry ?? node?.children.find(({ element }) => element.name === name)),
    ]),
  );
}

/** What a list's column holds: below a repeated group, or the group itself in files of old writers. */
function listItem(node: SchemaNode | undefined): SchemaNode | undefined {
  const repeated = node?.element.converted_type === "LIST" ? node.children[0] : node;
  return repeated?.children.length === 1 && repeated !== node ? repeated.children[0] : repeated;
}

const mapValue = (node: SchemaNode | undefined): SchemaNode | undefined =>
  ["MAP", "MAP_KEY_VALUE"].includes(node?.element.converted_type ?? "")
    ? node?.children[0]?.children[1]
    : undefined;
