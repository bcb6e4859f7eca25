import { LockstepError } from "#lib/core/errors/index";
import { parseJson } from "#lib/core/json-text";
import type { FloatDtype } from "#lib/core/dtype";
import { isRecord } from "./file-reader.js";
import {
  maxSafetensorsHeaderBytes,
  maxTensorNameLength,
  maxTensorRank,
  maxTensorsPerFile,
} from "./limits.js";

/** Element types of the safetensors format, with their size in bytes. */
export const storedDtypeBytes = Object.freeze({
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I8: 1,
  U8: 1,
  BOOL: 1,
});
export type StoredDtype = keyof typeof storedDtypeBytes;

export const storedDtypeOf: Readonly<Record<FloatDtype, StoredDtype>> = Object.freeze({
  float32: "F32",
  bfloat16: "BF16",
  float16: "F16",
});

export interface TensorEntry {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
}

export interface StoredTensor extends TensorEntry {
  /** First byte of the tensor in the file. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly numElements: number;
}

interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Bytes of the little-endian header length in front of the header. */
export const headerLengthBytes = 8;

/**
 * The header's length from the first eight bytes, checked against the file and the format's limit
 * before anybody allocates it.
 */
export function parseHeaderLength(file: string, prefix: Uint8Array, fileBytes: number): number {
  const fail = (problem: string): never => {
    throw new LockstepError("E_SAFETENSORS_HEADER", { file, problem });
  };
  if (fileBytes < headerLengthBytes)
    fail(`it has ${fileBytes} bytes, fewer than the 8 of its header length`);
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(maxSafetensorsHeaderBytes)) {
    fail(`its header claims ${length} bytes; at most ${maxSafetensorsHeaderBytes} are accepted`);
  }
  if (length > BigInt(fileBytes - headerLengthBytes)) {
    fail(`its header claims ${length} bytes, but the file has only ${fileBytes}`);
  }
  return Number(length);
}

/**
 * Parses and checks the JSON header: every tensor's type is known, its span is exactly its shape's
 * size, and the spans, in order of their offsets, cover the rest of the file without gap or overlap
 * (the format's own rule, so that a file cannot hide bytes).
 */
export function parseSafetensorsHeader(
  file: string,
  headerBytes: Uint8Array,
  fileBytes: number,
): SafetensorsHeader {
  const failHeader = (problem: string): never => {
    throw new LockstepError("E_SAFETENSORS_HEADER", { file, problem });
  };
  let text: string;
  let parsed: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(headerBytes);
    parsed = parseJson(text);
  } catch (cause) {
    const problem = `its header is not UTF-8 JSON (${cause instanceof Error ? cause.message : String(cause)})`;
    throw new LockstepError("E_SAFETENSORS_HEADER", { file, problem }, { cause });
  }
  if (!isRecord(parsed)) return failHeader("its header is not a JSON object");
  const entries = Object.entries(parsed);
  // JSON.parse keeps the last of two equal keys without a word; a colon at depth 1 is one key.
  const numKeys = countTopLevelKeys(text);
  if (numKeys !== entries.length) {
    failHeader(`its header has ${numKeys} entries with only ${entries.length} different names`);
  }
  if (entries.length > maxTensorsPerFile + 1) {
    failHeader(`it claims ${entries.length} tensors; at most ${maxTensorsPerFile} are accepted`);
  }
  let metadata: Record<string, string> = {};
  const dataStart = headerLengthBytes + headerBytes.byteLength;
  const tensors: StoredTensor[] = [];
  for (const [name, value] of entries) {
    if (name === "__metadata__") metadata = parseMetadata(file, value);
    else tensors.push(parseTensor(file, name, value, dataStart, fileBytes));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.sizeBytes - b.sizeBytes);
  let end = dataStart;
  for (const tensor of tensors) {
    if (tensor.offset !== end) {
      throw new LockstepError("E_SAFETENSORS_OFFSETS", {
        file,
        tensor: tensor.name,
        problem:
          tensor.offset < end
            ? `it overlaps the tensor before it by ${end - tensor.offset} bytes`
            : `${tensor.offset - end} bytes before it belong to no tensor`,
      });
    }
    end += tensor.sizeBytes;
  }
  if (end !== fileBytes) {
    failHeader(`its last ${fileBytes - end} bytes belong to no tensor`);
  }
  return {
    tensors: new Map(tensors.map((tensor) => [tensor.name, Object.freeze(tensor)])),
    metadata: Object.freeze(metadata),
  };
}

function parseMetadata(file: string, value: unknown): Record<string, string> {
  if (isRecord(value) && Object.values(value).every((item) => typeof item === "string")) {
    return value as Record<string, string>;
  }
  throw new LockstepError("E_SAFETENSORS_HEADER", {
    file,
    problem: "its __metadata__ is not an object of strings",
  });
}

function parseTensor(
  file: string,
  name: string,
  value: unknown,
  dataStart: number,
  fileBytes: number,
): StoredTensor {
  const fail = (problem: string): never => {
    const shownName = name.length > 80 ? `${name.slice(0, 80)}...` : name;
    throw new LockstepError("E_SAFETENSORS_OFFSETS", { file, tensor: shownName, problem });
  };
  if (name.length > maxTensorNameLength) {
    fail(`its name has ${name.length} characters; at most ${maxTensorNameLength} are accepted`);
  }
  if (!isRecord(value)) return fail("its entry is not a JSON object");
  const { dtype, shape, data_offsets: span } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(storedDtypeBytes, dtype)) {
    throw new LockstepError("E_TENSOR_DTYPE", {
      where: file,
      tensor: name,
      dtype: JSON.stringify(dtype)?.slice(0, 40) ?? "nothing",
      supported: Object.keys(storedDtypeBytes).join(", "),
    });
  }
  if (!isSizeList(shape)) return fail("its shape is not a list of sizes");
  if (shape.length > maxTensorRank) fail(`it has ${shape.length} dimensions`);
  if (!isSizeList(span) || span.length !== 2) return fail("its data_offsets are not two sizes");
  const [begin, end] = span as [number, number];
  const sizeBytes = end - begin;
  if (sizeBytes < 0) fail(`its end ${end} lies before its begin ${begin}`);
  if (dataStart + end > fileBytes) {
    fail(`it ends ${dataStart + end - fileBytes} bytes after the end of the file`);
  }
  let numElements = 1;
  for (const dim of shape) {
    numElements *= dim;
    // The product is exact below 2^53, and no file has so many elements.
    if (!Number.isSafeInteger(numElements)) fail(`its shape [${shape.join(", ")}] is too large`);
  }
  const expectedBytes = numElements * storedDtypeBytes[dtype as StoredDtype];
  if (expectedBytes !== sizeBytes) {
    fail(
      `shape [${shape.join(", ")}] of ${dtype} needs ${expectedBytes} bytes, its span has ${sizeBytes}`,
    );
  }
  return {
    name,
    dtype: dtype as StoredDtype,
    shape: Object.freeze([...shape]),
    offset: dataStart + begin,
    sizeBytes,
    numElements,
  };
}

function isSizeList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/** Keys of the outermost object of a valid JSON text, duplicates counted. */
function countTopLevelKeys(text: string): number {
  let depth = 0;
  let numKeys = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22: // A string: skip to its closing quote.
        for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
        break;
      case 0x7b:
      case 0x5b:
        depth++;
        break;
      case 0x7d:
      case 0x5d:
        depth--;
        break;
      case 0x3a:
        if (depth === 1) numKeys++;
        break;
    }
  }
  return numKeys;
}
