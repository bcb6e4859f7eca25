import { LockstepError } from "#lib/core/errors/index";
import { DistantElements, EncodedElements } from "./elements.js";
import { openLocalTarget, type OpenTarget } from "./file-target.js";
import {
  headerLengthBytes,
  storedDtypeBytes,
  type StoredDtype,
  type TensorEntry,
} from "./safetensors-header.js";

/** A tensor's bytes in one piece, or in consecutive pieces that may reuse one buffer. */
type TensorBytes = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array> | DistantElements;

/** Gives the little-endian row-major bytes of the tensor `name`; called once each, in file order. */
type TensorSource = (name: string) => TensorBytes | Promise<TensorBytes>;

interface WriteOptions {
  /** Who writes it. @default this thread, into a local file that is fsynced */
  readonly openTarget?: OpenTarget | undefined;
  /** Goes into the header's `__metadata__`; `{"format":"pt"}` is what transformers v4 insists on. */
  readonly metadata?: Readonly<Record<string, string>>;
}

const defaultMetadata: Readonly<Record<string, string>> = Object.freeze({ format: "pt" });

/**
 * Writes a safetensors file. Only one piece of one tensor is in memory at a time, and
 * the next is asked for when the disk has taken the last. Tensors lie in the order of the reference
 * writer: wider element types first (so that each is aligned), then by name.
 *
 * @throws E_DUPLICATE_TENSOR, E_TENSOR_SIZE when `source` gives other than the declared bytes; what
 * was written so far then stays for the caller to remove (`saveAtomically` does).
 */
export async function writeSafetensors(
  file: string,
  entries: Iterable<TensorEntry>,
  source: TensorSource,
  options: WriteOptions = {},
): Promise<{ readonly sizeBytes: number }> {
  const ordered = orderEntries(file, entries);
  const header = encodeHeader(ordered, options.metadata ?? defaultMetadata);
  const target = await (options.openTarget ?? openLocalTarget)(file);
  try {
    await target.write(header);
    for (const entry of ordered) {
      const expected = tensorSizeBytes(entry);
      const requireSize = (actual: number, isWhole: boolean): void => {
        if (isWhole ? actual === expected : actual <= expected) return;
        throw new LockstepError("E_TENSOR_SIZE", {
          ...{ where: file, tensor: entry.name, expected, actual, unit: "bytes" },
        });
      };
      const bytes = await source(entry.name);
      if (bytes instanceof EncodedElements) {
        requireSize(bytes.sizeBytes, true);
        await target.writeElements(bytes);
        continue;
      }
      if (bytes instanceof DistantElements) {
        requireSize(bytes.sizeBytes, true);
        for await (const piece of bytes.fetched()) await target.writeElements(piece);
        continue;
      }
      let written = 0;
      for await (const piece of bytes instanceof Uint8Array ? [bytes] : bytes) {
        written += piece.byteLength;
        requireSize(written, false);
        await target.write(piece);
      }
      requireSize(written, true);
    }
  } catch (error) {
    await target.abandon();
    throw error;
  }
  return { sizeBytes: await target.close() };
}

export function tensorSizeBytes(entry: {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
}): number {
  return entry.shape.reduce((product, dim) => product * dim, storedDtypeBytes[entry.dtype]);
}

function orderEntries(file: string, entries: Iterable<TensorEntry>): readonly TensorEntry[] {
  const ordered = [...entries];
  const names = new Set<string>();
  for (const { name } of ordered) {
    if (names.has(name))
      throw new LockstepError("E_DUPLICATE_TENSOR", { where: file, tensor: name });
    names.add(name);
  }
  return ordered.sort(
    (a, b) =>
      storedDtypeBytes[b.dtype] - storedDtypeBytes[a.dtype] ||
      Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)),
  );
}

/** Header length, JSON, and spaces up to a multiple of 8 bytes, so that the data is aligned. */
function encodeHeader(
  entries: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const fields = [`"__metadata__":${JSON.stringify(metadata)}`];
  let begin = 0;
  for (const { name, dtype, shape } of entries) {
    const end = begin + tensorSizeBytes({ dtype, shape });
    fields.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`,
    );
    begin = end;
  }
  const json = Buffer.from(`{${fields.join(",")}}`);
  const paddedBytes = Math.ceil(json.byteLength / 8) * 8;
  const header = Buffer.alloc(headerLengthBytes + paddedBytes, " ");
  header.writeBigUInt64LE(BigInt(paddedBytes), 0);
  json.copy(header, headerLengthBytes);
  return header;
}
