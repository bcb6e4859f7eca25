import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bytesPerElement, type FloatDtype } from "#lib/core/dtype";
import type { SavedTensors } from "#lib/core/saved-files";
import { encodeElements, type TensorValues } from "./elements.js";
import type { OpenTarget } from "./file-target.js";
import { weightsFileName, weightsIndexFileName } from "./model-weights.js";
import { storedDtypeOf } from "./safetensors-header.js";
import { tensorSizeBytes, writeSafetensors } from "./safetensors-writer.js";

/** A tensor that a directory will hold. */
export interface SavedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Its elements, row-major; asked for once, when its turn comes. */
  readonly read: () => TensorValues | Promise<TensorValues>;
  /** Where it begins, and its index there. */
  readonly kept?: { readonly keeper: TensorKeeper; readonly tensor: number } | undefined;
}

/** Writes files of the tensors that begin in one process's part of a model. */
export interface TensorKeeper {
  /** Its place among them, from 0. */
  readonly index: number;
  /**
   * @param tensors with the names that the file gives them
   * @returns whether the file is written; where it cannot be, it is as with tensors that nobody keeps
   */
  readonly write: (
    file: string,
    tensors: SavedTensors["tensors"],
    dtype: FloatDtype,
  ) => Promise<boolean>;
}

interface WeightsOptions {
  readonly dtype: FloatDtype;
  readonly maxShardBytes: number;
  /** Who writes what nobody writes elsewhere. @default this thread, into local files */
  readonly openTarget?: OpenTarget | undefined;
}

/** Weights of at most so many bytes, all together, are one file where those of a shard would be several. */
const maxSingleFileBytes = 32 << 20;

/**
 * Writes a model's weights, in several files with an index where they are large. Each file has the tensors that begin
 * with one keeper, who writes it while the others write theirs; tensors without one come last. So names and borders of
 * the files follow from the tensors, the number of keepers and the limits alone.
 */
export async function writeModelWeights(
  directory: string,
  tensors: readonly SavedTensor[],
  { dtype, maxShardBytes, openTarget }: WeightsOptions,
): Promise<void> {
  const shards = splitByKeeper(tensors, dtype, maxShardBytes).flatMap((kept) =>
    splitIntoShards(kept, dtype, maxShardBytes),
  );
  const fileNames = shards.map((_, i) =>
    shards.length === 1
      ? weightsFileName
      : `model-${fiveDigits(i + 1)}-of-${fiveDigits(shards.length)}.safetensors`,
  );
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = async (write: () => Promise<unknown>): Promise<unknown> => {
    last = last.then(write, write);
    return last;
  };
  const written = await Promise.allSettled(
    shards.map(async (shard, i) => {
      const file = join(directory, fileNames[i] as string);
      if (await writtenByKeeper(file, shard, dtype)) return;
      await inTurn(() => writeHere(file, shard, { dtype, openTarget }));
    }),
  );
  for (const file of written) if (file.status === "rejected") throw file.reason;
  if (shards.length > 1) {
    await writeFile(
      join(directory, weightsIndexFileName),
      weightsIndexText(shards, fileNames, dtype),
    );
  }
}

async function writtenByKeeper(
  file: string,
  tensors: readonly SavedTensor[],
  dtype: FloatDtype,
): Promise<boolean> {
  const keeper = tensors[0]?.kept?.keeper;
  const kept = tensors.flatMap(({ name, kept: at }) =>
    at === undefined || at.keeper !== keeper ? [] : [{ tensor: at.tensor, name }],
  );
  if (keeper === undefined || kept.length < tensors.length) return false;
  return keeper.write(file, kept, dtype);
}

async function writeHere(
  file: string,
  tensors: readonly SavedTensor[],
  { dtype, openTarget }: Pick<WeightsOptions, "dtype" | "openTarget">,
): Promise<void> {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  await writeSafetensors(
    file,
    tensors.map(({ name, shape }) => ({ name, shape, dtype: storedDtypeOf[dtype] })),
    async (name) => encodeElements(await (byName.get(name) as SavedTensor).read(), dtype, name),
    { openTarget },
  );
}

/** Tensors of each keeper, and those of none; all together where they are few, or nobody would write beside others. */
function splitByKeeper(
  tensors: readonly SavedTensor[],
  dtype: FloatDtype,
  maxShardBytes: number,
): readonly (readonly SavedTensor[])[] {
  const limitBytes = Math.min(maxSingleFileBytes, maxShardBytes);
  const keepers = new Set(tensors.flatMap(({ kept }) => kept?.keeper.index ?? []));
  const isSmall = tensors.reduce((sum, tensor) => sum + sizeOf(tensor, dtype), 0) <= limitBytes;
  if (isSmall || keepers.size < 2) return [tensors];
  const indexes = [...[...keepers].sort((a, b) => a - b), undefined];
  return indexes
    .map((index) => tensors.filter(({ kept }) => kept?.keeper.index === index))
    .filter(({ length }) => length > 0);
}

const sizeOf = ({ shape }: Pick<SavedTensor, "shape">, dtype: FloatDtype): number =>
  tensorSizeBytes({ dtype: storedDtypeOf[dtype], shape });

/** transformers' greedy split: a shard closes when the next tensor would exceed the limit. */
function splitIntoShards(
  tensors: readonly SavedTensor[],
  dtype: FloatDtype,
  maxShardBytes: number,
): readonly (readonly SavedTensor[])[] {
  const shards: SavedTensor[][] = [[]];
  let shardBytes = 0;
  for (const tensor of tensors) {
    const sizeBytes = sizeOf(tensor, dtype);
    let shard = shards[shards.length - 1] as SavedTensor[];
    if (shard.length > 0 && shardBytes + sizeBytes > maxShardBytes) {
      shard = [];
      shards.push(shard);
      shardBytes = 0;
    }
    shard.push(tensor);
    shardBytes += sizeBytes;
  }
  return shards;
}

function weightsIndexText(
  shards: readonly (readonly SavedTensor[])[],
  fileNames: readonly string[],
  dtype: FloatDtype,
): string {
  const weightMap: [string, string][] = [];
  let totalParameters = 0;
  for (const [i, shard] of shards.entries()) {
    for (const { name, shape } of shard) {
      weightMap.push([name, fileNames[i] as string]);
      totalParameters += shape.reduce((product, dim) => product * dim, 1);
    }
  }
  weightMap.sort(([a], [b]) => (a < b ? -1 : 1));
  const index = {
    metadata: {
      total_parameters: totalParameters,
      total_size: totalParameters * bytesPerElement[dtype],
    },
    weight_map: Object.fromEntries(weightMap),
  };
  return `${JSON.stringify(index, null, 2)}\n`;
}

const fiveDigits = (value: number): string => String(value).padStart(5, "0");
