import { type ModelTensor, saveFilesAtomically, writeModelDirectory } from "#lib/checkpoint/index";
import type { FloatDtype } from "#lib/core/dtype";
import { inClaimedDirectory } from "./claimed-directory.js";
import { type ExportSource, openExportSource } from "./export-source.js";
import {
  checkDifference,
  defaultBounds,
  type MergeDifference,
  mergeDifference,
} from "./merge-difference.js";
import type { ModelPlace } from "./model-place.js";
import { openModelWeights } from "./model-weights.js";

export interface ExportOptions {
  readonly directory: string;
  /** @default that of the model's files */
  readonly dtype?: FloatDtype | undefined;
  /** Weights beyond this many bytes go into shards with an index. */
  readonly maxShardBytes?: number | undefined;
  /** Part of the largest logit by which a merged adapter may differ; Infinity: nothing is compared. */
  readonly maxLogitDifference?: number | undefined;
  /** Gets lines for a person who waits. */
  readonly onDetail: (text: string) => void;
}

export interface Exported {
  readonly dtype: FloatDtype;
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
 * @throws E_DIRECTORY_NOT_EMPTY, E_OUTPUT_DIR_IN_USE, E_EXPORT_DIFFERENCE, E_TENSOR_RANGE, and what opening the model throws
 */
export async function exportModel(place: ModelPlace, options: ExportOptions): Promise<Exported> {
  const { directory, onDetail } = options;
  const source = await openExportSource(place);
  try {
    const dtype = options.dtype ?? source.dtype;
    let difference: MergeDifference | undefined;
    const write = async (temporary: string): Promise<void> => {
      await writeModelDirectory(temporary, {
        sourceDir: place.modelDirectory,
        tokenizerDir: place.tokenizerDirectory,
        tensors: source.tensors,
        configChanges: source.configChanges,
        dtype,
        ...(options.maxShardBytes === undefined ? {} : { maxShardBytes: options.maxShardBytes }),
      });
      difference = await comparedWithAdapter(source, place, { ...options, dtype }, temporary);
    };
    await inClaimedDirectory(directory, () => saveFilesAtomically(directory, write), {
      overwrite: false,
      onWaiting: onDetail,
    });
    return {
      dtype,
      numParameters: source.tensors.reduce((sum, tensor) => sum + elementsOf(tensor), 0),
      warnings: source.warnings,
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

const elementsOf = ({ shape }: ModelTensor): number =>
  shape.reduce((product, dim) => product * dim, 1);

/** @throws E_EXPORT_DIFFERENCE */
async function comparedWithAdapter(
  source: ExportSource,
  place: ModelPlace,
  { dtype, maxLogitDifference, onDetail }: ExportOptions & { readonly dtype: FloatDtype },
  written: string,
): Promise<MergeDifference | undefined> {
  const bound = maxLogitDifference ?? defaultBounds[dtype];
  const { adapter } = source;
  if (adapter === undefined || bound === Number.POSITIVE_INFINITY) return undefined;
  const weights = await openModelWeights(written);
  try {
    const difference = await mergeDifference({ ...source, adapter }, place, (name) =>
      weights.readFloat32(name),
    );
    if (difference === undefined) {
      onDetail("not compared with the adapter: this machine has not the memory for it in float32");
    } else checkDifference(difference, { bound, dtype });
    return difference;
  } finally {
    await weights.close();
  }
}
