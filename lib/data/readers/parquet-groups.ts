import { type parquetMetadata, parquetReadObjects } from "hyparquet";
import { LockstepError } from "#lib/core/errors/index";
import { quiet } from "#lib/core/quiet-promise";
import { checkPages, maxDecodedBytes, rowBytes } from "./parquet-columns.js";
import { pageDecompressors } from "./parquet-pages.js";
import { columnShape, numLeaves, type SchemaNode } from "./parquet-schema.js";
import { textParsers } from "./parquet-texts.js";

/** Held in memory with its decoded values; writers make row groups of 128 MiB. */
export const maxRowGroupBytes = 512 * 2 ** 20;

type Metadata = ReturnType<typeof parquetMetadata>;
type RowGroup = Metadata["row_groups"][number];

/** A Parquet file that is open, and the refusals that name it. */
interface ParquetFile {
  /** Bytes before the footer. */
  readonly dataBytes: number;
  read(start: number, end: number): Promise<ArrayBuffer>;
  invalid(cause: unknown): LockstepError;
  tooLarge(what: string, sizeBytes: number, limitBytes: number): LockstepError;
}

/**
 * Checks what a footer says of a file's row groups, before any is read.
 *
 * @throws LockstepError
 */
export function checkRowGroups(file: ParquetFile, metadata: Metadata, root: SchemaNode): void {
  const numColumns = root.children.length === 0 ? 0 : numLeaves(root);
  let numBytes = 0;
  for (const [i, group] of metadata.row_groups.entries()) {
    if (group.columns.length !== numColumns) {
      throw file.invalid(
        `row group ${i + 1} has ${group.columns.length} columns, the schema ${numColumns}`,
      );
    }
    const groupBytes = Number(group.total_byte_size);
    if (groupBytes > maxRowGroupBytes) {
      throw file.tooLarge("row group", groupBytes, maxRowGroupBytes);
    }
    const numRows = Number(group.num_rows);
    if (!Number.isSafeInteger(numRows) || numRows < 0 || (numRows > 0 && numColumns === 0)) {
      throw file.invalid(`row group ${i + 1} claims ${numRows} rows in ${numColumns} columns`);
    }
    for (const { meta_data: column } of group.columns) numBytes += rangeOf(file, column).numBytes;
  }
  if (numBytes <= file.dataBytes) return;
  throw file.invalid(
    `its columns claim ${numBytes} bytes of the ${file.dataBytes} before the footer`,
  );
}

function rangeOf(
  file: ParquetFile,
  column: RowGroup["columns"][number]["meta_data"],
): { readonly start: number; readonly numBytes: number } {
  if (column === undefined) throw file.invalid("a column of a row group has no metadata");
  // As the decoder finds them: a dictionary is before the first page of data.
  const start = Number(column.dictionary_page_offset || column.data_page_offset);
  const numBytes = Number(column.total_compressed_size);
  const end = start + numBytes;
  if (Number.isSafeInteger(end) && start >= 0 && numBytes >= 0 && end <= file.dataBytes) {
    return { start, numBytes };
  }
  throw file.invalid(
    `column ${column.path_in_schema.join(".")} claims bytes ${start} to ${end} of the ${file.dataBytes} before the footer`,
  );
}

/**
 * The rows of a row group. Its pages are walked first, and each is looked at again between decompressing and decoding.
 *
 * @throws LockstepError
 */
export async function readRowGroup(
  file: ParquetFile,
  metadata: Metadata,
  root: SchemaNode,
  group: RowGroup,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const numRows = Number(group.num_rows);
  if (numRows === 0) return [];
  let [pageBytes, decodedBytes] = [0, 0];
  const limits = {
    takePageBytes: (numBytes: number): void => {
      pageBytes += numBytes;
      if (pageBytes > maxRowGroupBytes) {
        throw file.tooLarge("row group", pageBytes, maxRowGroupBytes);
      }
    },
    takeDecodedBytes: (numBytes: number): void => {
      decodedBytes += numBytes;
      if (decodedBytes > maxDecodedBytes) {
        throw file.tooLarge("decoded row group", decodedBytes, maxDecodedBytes);
      }
    },
  };
  const compressors: Record<string, (input: Uint8Array, outputLength: number) => Uint8Array> = {};
  const shapes = [];
  const columns: RowGroup["columns"] = [];
  for (const [i, chunk] of group.columns.entries()) {
    const column = chunk.meta_data;
    const { start, numBytes } = rangeOf(file, column);
    if (column === undefined) continue;
    const named = inColumn(file, column.path_in_schema.join("."));
    const { codec, type } = column;
    const decompress = pageDecompressors[codec];
    if (decompress === undefined && codec !== "UNCOMPRESSED") {
      throw named(new Error(`its compression codec ${codec} is not read`));
    }
    const pages = new Uint8Array(await file.read(start, start + numBytes));
    try {
      const shape = columnShape(root, column.path_in_schema);
      shapes.push(shape);
      const checkContent = checkPages(pages, { type, shape, numRows }, limits);
      // A codec of its own for each column, so that each page is known when it is decompressed.
      const name = `${codec} of column ${i}`;
      compressors[name] = (input, outputLength) => {
        try {
          const content = decompress === undefined ? input : decompress(input, outputLength);
          checkContent(content);
          return content;
        } catch (cause) {
          throw named(cause);
        }
      };
      columns.push({ ...chunk, meta_data: { ...column, codec: name as typeof codec } });
    } catch (cause) {
      throw named(cause);
    }
  }
  limits.takeDecodedBytes(rowBytes(numRows, shapes));
  return parquetReadObjects({
    file: {
      byteLength: file.dataBytes,
      // The columns of a group are read at once, and one that fails may be left alone.
      slice: (start: number, end: number = file.dataBytes) =>
        quiet(file.read(start, Math.min(end, file.dataBytes))),
    },
    // Of this group alone: others would be looked at again for each.
    metadata: { ...metadata, row_groups: [{ ...group, columns }] },
    compressors,
    parsers: textParsers,
  }).catch((cause: unknown) => {
    throw cause instanceof LockstepError ? cause : file.invalid(cause);
  });
}

const inColumn =
  (file: ParquetFile, column: string) =>
  (cause: unknown): LockstepError => {
    if (cause instanceof LockstepError) return cause;
    return file.invalid(
      new Error(`column ${column}: ${cause instanceof Error ? cause.message : String(cause)}`, {
        cause,
      }),
    );
  };
