import { existsSync } from "node:fs";
import { join } from "node:path";
import { type ModelTensor, saveFilesAtomically, writeModelDirectory } from "#lib/checkpoint/index";
import type { FloatDtype } from "#lib/core/dtype";
import { counted } from "#lib/core/format";
import type { Nf4Form } from "#lib/core/nf4";
import { inClaimedDirectory } from "./claimed-directory.js";
import { type ExportSource, openExportSource, type WrittenWeights } from "./export-source.js";
import type { GgufDtype } from "./gguf-file.js";
import { checkDifference, type MergeDifference, mergeDifference } from "./merge-difference.js";
import type { ModelPlace } from "./model-place.js";
import { openModelWeights } from "./model-weights.js";

/** The name of a GGUF file in its directory. */
export const ggufFileName = "model.gguf";

export const exportFormats = ["safetensors", "gguf"] as const;

export interface ExportOptions {
  readonly directory: string;
  readonly format: (typeof exportFormats)[number];
  /** q8_0 is of GGUF alone. @default that of the model's files */
  readonly dtype?: GgufDtype | undefined;
  /** The form of 4 bits through which an adapter's base is taken first. */
  readonly quantisation?: Nf4Form | undefined;
  /** Weights beyond this many bytes go into shards with an index. */
  readonly maxShardBytes?: number | undefined;
  /** Part of the largest logit by which a merged adapter may differ; Infinity: nothing is compared. */
  readonly maxLogitDifference?: number | undefined;
  /** Gets lines for a person who waits. */
  readonly onDetail: (text: string) => void;
}

export interface Exported {
  readonly dtype: GgufDtype;
  readonly numParameters: number;
  /** Of an adapter that was merged. */
  readonly merged?: {
    readonly numModules: number;
    /** Absent where it was not compared. */
    readonly difference?: MergeDifference;
  };
  readonly warnings: readonly string[];
}

/**
 * Writes a model, or an adapter merged into its base model, into a directory of its own. Merging is done in
 * float32, and rounded once. The merged model is compared with the adapter before anything is in its place.
 *
 * @throws E_DIRECTORY_NOT_EMPTY, E_OUTPUT_DIR_IN_USE, E_EXPORT_DIFFERENCE, E_GGUF_EXPORT, E_TENSOR_RANGE, and what
 *   opening the model throws
 */
export async function exportModel(place: ModelPlace, options: ExportOptions): Promise<Exported> {
  const { directory, onDetail } = options;
  const opened = await openExportSource(place, options.quantisation);
  const { source, nonFinite } = watchingNumbers(opened);
  try {
    const dtype = options.dtype ?? source.dtype;
    let difference: MergeDifference | undefined;
    const { write, openWritten, warnings } =
      options.format === "gguf"
        ? await planGguf(source, place, dtype)
        : planSafetensors(source, place, dtype as FloatDtype, options.maxShardBytes);
    const writeAndCompare = async (temporary: string): Promise<void> => {
      await write(temporary);
      difference = await comparedWithAdapter(source, place, { ...options, dtype }, () =>
        openWritten(temporary),
      );
    };
    await inClaimedDirectory(directory, () => saveFilesAtomically(directory, writeAndCompare), {
      overwrite: false,
      onWaiting: onDetail,
    });
    return {
      dtype,
      numParameters: source.tensors.reduce((sum, tensor) => sum + elementsOf(tensor), 0),
      warnings: [...source.warnings, ...warnings, ...nonFinite()],
      ...(source.adapter === undefined
        ? {}
        : {
            merged: {
              numModules: source.adapter.numModules,
              ...(difference === undefined ? {} : { difference }),
            },
          }),
    };
  } finally {
    await source.close();
  }
}

/** A source that notes which of its weights hold NaN or infinity: whoever loads the result would not be told. */
function watchingNumbers(source: ExportSource): {
  readonly source: ExportSource;
  /** A warning, if any, of what was read so far. */
  readonly nonFinite: () => readonly string[];
} {
  const found = new Set<string>();
  const tensors = source.tensors.map((tensor) => ({
    ...tensor,
    read: async () => {
      const values = await tensor.read();
      if (values.some((value) => !Number.isFinite(value))) found.add(tensor.name);
      return values;
    },
  }));
  return {
    source: { ...source, tensors },
    nonFinite: () => {
      const [first] = found;
      if (first === undefined) return [];
      const others = found.size === 1 ? "" : ` and ${counted(found.size - 1, "other weight")}`;
      return [
        `${first}${others} ${found.size === 1 ? "holds" : "hold"} numbers that are not finite (NaN or infinity)`,
      ];
    },
  };
}

const elementsOf = ({ shape }: ModelTensor): number =>
  shape.reduce((product, dim) => product * dim, 1);

/** How a format is written, and read again. */
interface ExportPlan {
  readonly warnings: readonly string[];
  readonly write: (directory: string) => Promise<void>;
  readonly openWritten: (directory: string) => Promise<WrittenWeights>;
}

function planSafetensors(
  source: ExportSource,
  place: ModelPlace,
  dtype: FloatDtype,
  maxShardBytes: number | undefined,
): ExportPlan {
  return {
    warnings: leftOut(place.modelDirectory, source.config),
    write: (directory) =>
      writeModelDirectory(directory, {
        sourceDir: place.modelDirectory,
        tokenizerDir: place.tokenizerDirectory,
        tensors: source.tensors,
        configChanges: source.configChanges,
        dtype,
        ...(maxShardBytes === undefined ? {} : { maxShardBytes }),
      }),
    openWritten: openModelWeights,
  };
}

/** What a model's directory has beyond a model of transformers, and the written one has not. */
function leftOut(directory: string, config: ExportSource["config"]): string[] {
  return [
    ...(existsSync(join(directory, "modules.json"))
      ? [
          "sentence-transformers' modules.json, and the pooling and normalization of it, are not copied",
        ]
      : []),
    ...("auto_map" in config ? ["code that config.json names (auto_map) is not copied"] : []),
  ];
}

/** @throws E_GGUF_EXPORT, and what reading the tokenizer throws */
async function planGguf(
  source: ExportSource,
  place: ModelPlace,
  dtype: GgufDtype,
): Promise<ExportPlan> {
  const { planGgufFile } = await import("./gguf-file.js");
  const { warnings, write, openWritten } = await planGgufFile(source, place, dtype);
  return {
    warnings,
    write: (directory) => write(join(directory, ggufFileName)),
    openWritten: (directory) => openWritten(join(directory, ggufFileName)),
  };
}

/** @throws E_EXPORT_DIFFERENCE */
async function comparedWithAdapter(
  source: ExportSource,
  place: ModelPlace,
  { dtype, maxLogitDifference, onDetail }: ExportOptions & { readonly dtype: GgufDtype },
  openWritten: () => Promise<WrittenWeights>,
): Promise<MergeDifference | undefined> {
  const { adapter } = source;
  if (adapter === undefined || maxLogitDifference === Number.POSITIVE_INFINITY) return undefined;
  const difference = await mergeDifference({ ...source, adapter }, place, {
    ...{ dtype, open: openWritten },
  });
  if (difference === undefined) {
    onDetail("not compared with the adapter: this machine has not the memory for it in float32");
  } else checkDifference(difference, { bound: maxLogitDifference, dtype });
  return difference;
}
