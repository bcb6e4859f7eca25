import { basename, resolve } from "node:path";
import { GgufFile } from "#lib/checkpoint/gguf/reader";
import { type GgufMetadataValue, tensorTypes, writeGguf } from "#lib/checkpoint/index";
import { LockstepError } from "#lib/core/errors/index";
import { type LlamaCppTensor, modelInLlamaCpp } from "#lib/models/llama-cpp/index";
import type { ExportSource, WrittenWeights } from "./export-source.js";
import { fromGguf, ggufShape, toGguf } from "./gguf-forms.js";
import { ggufVocabulary } from "./gguf-vocabulary.js";
import type { ModelPlace } from "./model-place.js";

/** ggml's types of weights by what --dtype calls them, with llama.cpp's number for a file of them. */
const ggufTypes = {
  float32: { type: "F32", fileType: 0 },
  float16: { type: "F16", fileType: 1 },
  bfloat16: { type: "BF16", fileType: 32 },
  q8_0: { type: "Q8_0", fileType: 7 },
} as const;
export type GgufDtype = keyof typeof ggufTypes;

/** Of ggml's quantised types. */
const quantizationVersion = 2;

/** What a GGUF file of a model will hold. */
interface GgufPlan {
  readonly warnings: readonly string[];
  readonly write: (file: string) => Promise<void>;
  /** Opens the file that was written, for its weights in the source's form. */
  readonly openWritten: (file: string) => Promise<WrittenWeights>;
}

/**
 * Plans a model's GGUF file as llama.cpp's convert_hf_to_gguf.py writes it; what llama.cpp would compute otherwise is
 * refused before anything is written.
 *
 * @throws E_GGUF_EXPORT, and what reading the tokenizer throws
 */
export async function planGgufFile(
  source: ExportSource,
  place: ModelPlace,
  dtype: GgufDtype,
): Promise<GgufPlan> {
  const refuse = (problem: string): never => {
    throw new LockstepError("E_GGUF_EXPORT", { model: place.directory, problem });
  };
  const model = modelInLlamaCpp(source.config, refuse);
  const found = new Map(source.tensors.map((tensor) => [tensor.name, tensor]));
  const tensors = model.tensors.map((tensor) => {
    const { shape, read } = found.get(tensor.source) ?? refuse(`it has no ${tensor.source}`);
    return { ...tensor, shape: ggufShape(shape, tensor.form), sourceShape: shape, read };
  });
  const used = new Set(tensors.map((tensor) => tensor.source));
  for (const name of found.keys()) {
    const isTiedHead = name === "lm_head.weight";
    if (!used.has(name) && !isTiedHead) refuse(`llama.cpp has no place for ${name}`);
  }
  const [embedding] = tensors;
  const numRows = embedding?.shape[0] as number;
  const vocabulary = await ggufVocabulary(
    place,
    { numRows, padTokenId: source.config["pad_token_id"] },
    refuse,
  );
  const typed = tensors.map((tensor) => ({ ...tensor, type: typeOf(tensor, dtype) }));
  const { architecture, vectors } = model;
  const metadata: Record<string, GgufMetadataValue> = {
    "general.architecture": { type: "string", value: architecture },
    "general.type": { type: "string", value: "model" },
    "general.name": { type: "string", value: basename(resolve(place.directory)) },
    "general.file_type": { type: "uint32", value: ggufTypes[dtype].fileType },
    "general.quantization_version": { type: "uint32", value: quantizationVersion },
    ...Object.fromEntries(
      Object.entries(model.metadata).map(([key, value]) => [`${architecture}.${key}`, value]),
    ),
    ...vocabulary.metadata,
  };
  const byName = new Map(typed.map((tensor) => [tensor.name, tensor]));
  const bySource = new Map(typed.map((tensor) => [tensor.source, tensor]));
  return {
    warnings: [...model.warnings, ...vocabulary.warnings],
    write: (file) =>
      writeGguf(file, {
        metadata,
        tensors: [
          ...Object.entries(vectors).map(([name, { length }]) => ({
            ...{ name, shape: [length], type: "F32" },
          })),
          ...typed,
        ],
        read: async (name) => {
          const vector = vectors[name];
          if (vector !== undefined) return vector;
          const { read, form, sourceShape } = byName.get(name) as (typeof typed)[number];
          return toGguf(await read(), form, sourceShape);
        },
      }),
    openWritten: async (file) => {
      const gguf = await GgufFile.open(file);
      return {
        readFloat32: async (source) => {
          const { name, form, sourceShape } = bySource.get(source) as (typeof typed)[number];
          return fromGguf(await readTensor(gguf, name), form, sourceShape);
        },
        close: () => gguf.close(),
      };
    },
  };
}

/** A tensor's values in a GGUF file, float32. @throws E_TENSOR_MISSING */
async function readTensor(gguf: GgufFile, name: string): Promise<Float32Array> {
  const tensor = gguf.tensors.get(name);
  if (tensor === undefined) {
    throw new LockstepError("E_TENSOR_MISSING", { where: gguf.file, tensor: name });
  }
  const bytes = new Uint8Array(tensor.sizeBytes);
  await gguf.readTensorBytes(tensor, 0, bytes);
  const values = new Float32Array(tensor.shape.reduce((product, dim) => product * dim, 1));
  tensorTypes[tensor.type]?.decode(bytes, values);
  return values;
}

/** As llama.cpp's converter, rows of no whole blocks are kept in float16. */
function typeOf(
  { alwaysFloat32, shape }: LlamaCppTensor & { readonly shape: readonly number[] },
  dtype: GgufDtype,
): string {
  if (alwaysFloat32) return "F32";
  const { type } = ggufTypes[dtype];
  const { blockElements = 1 } = tensorTypes[type] ?? {};
  return (shape.at(-1) as number) % blockElements === 0 ? type : "F16";
}
