import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ModelWeights, OptimizerStateReader } from "#lib/checkpoint/index";
import { checkedFiles, checksumsFile, readCheckpointSums } from "#lib/checkpoint/checked-files";
import { localFiles } from "#lib/checkpoint/state-files";
import { checkpointRecordFile } from "#lib/checkpoint/run-record";
import { bytesSha256 } from "#lib/core/bytes-hash";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { ElementRange, ParameterLayout, TensorSlot } from "#lib/core/parameter-layout";
import type { ShardArrays } from "#lib/core/shard-arrays";
import { type LoadValues, readCutRange } from "#lib/core/wire-space";
import { weightsIn } from "#lib/parameters/model";
import type { ShardFiles, StoredTensors } from "#lib/wire/reducer-messages";

/** What a shard reads into. */
interface ShardPlaces {
  readonly layout: ParameterLayout;
  readonly range: ElementRange;
  readonly arrays: ShardArrays;
  /** Of the weights that stay as they are, their range in wire form. */
  readonly frozen:
    | {
        readonly layout: ParameterLayout;
        readonly range: ElementRange;
        readonly wireBytes: Uint8Array;
      }
    | undefined;
}

/**
 * Reads what of a shard's range lies in files, each element once and no more of a file than that.
 *
 * @returns SHA-256 of what was read of a model, to be compared with what the coordinator reads
 * @throws E_REDUCER_FILES where they cannot be read, or are not those that the coordinator sees; E_CHECKPOINT_DAMAGED
 */
export async function loadShardFiles(
  files: ShardFiles,
  places: ShardPlaces,
): Promise<{ readonly mastersSha256: string; readonly frozenSha256: string }> {
  const { checkpoint, masters, frozen } = files;
  if (checkpoint !== undefined) {
    await readable(checkpoint.directory, () => loadCheckpoint(checkpoint, places));
  }
  const mastersSha256 =
    masters === undefined
      ? ""
      : await readable(masters.directory, () => loadMasters(masters, places));
  const frozenSha256 =
    frozen === undefined ? "" : await readable(frozen.directory, () => loadFrozen(frozen, places));
  return { mastersSha256, frozenSha256 };
}

async function readable<T>(directory: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (isLockstepError(cause) && cause.code === "E_CHECKPOINT_DAMAGED") throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError("E_REDUCER_FILES", { directory, reason }, { cause });
  }
}

async function loadCheckpoint(
  { directory, sha256 }: NonNullable<ShardFiles["checkpoint"]>,
  { range, arrays }: ShardPlaces,
): Promise<void> {
  const recordFile = join(directory, checkpointRecordFile);
  const record = await readFile(recordFile);
  if (createHash("sha256").update(record).digest("hex") !== sha256) {
    throw new Error(`${checkpointRecordFile} is not the one that the coordinator sees there`);
  }
  const sums = await readCheckpointSums(directory, directory);
  if (sums === undefined) throw new Error(`${checksumsFile} cannot be read`);
  const own = dirname(recordFile);
  const files = checkedFiles(localFiles(own), sums, directory);
  const reader = await OptimizerStateReader.open(own, files);
  try {
    await reader.readMasters(range, arrays.masters);
    await reader.readStates(range, arrays.states);
  } finally {
    await reader.close();
  }
}

async function loadMasters(
  stored: StoredTensors,
  { layout, range, arrays: { masters } }: ShardPlaces,
): Promise<string> {
  const tensors = namedTensors(stored, layout);
  const weights = await ModelWeights.open(stored.directory);
  try {
    const load = loadOf(weights, tensors, layout);
    await load(range, masters);
  } finally {
    await weights.close();
  }
  const hash = createHash("sha256");
  for (const { slot } of tensors) {
    const [start, end] = [
      Math.max(range.start, slot.offset),
      Math.min(range.end, slot.offset + slot.size),
    ];
    if (start >= end) continue;
    const part = masters.subarray(start - range.start, end - range.start);
    hash.update(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
  }
  return hash.digest("hex");
}

async function loadFrozen(stored: StoredTensors, { frozen }: ShardPlaces): Promise<string> {
  if (frozen === undefined) throw new Error("this shard has no weights that stay as they are");
  const { layout, range, wireBytes } = frozen;
  const weights = await ModelWeights.open(stored.directory);
  try {
    await readCutRange(
      layout,
      range,
      loadOf(weights, namedTensors(stored, layout), layout),
      wireBytes,
    );
  } finally {
    await weights.close();
  }
  return bytesSha256(wireBytes);
}

interface NamedSlot {
  readonly slot: TensorSlot;
  /** What the files call it. */
  readonly stored: string;
}

/** In the order of the layout. */
function namedTensors({ tensors }: StoredTensors, layout: ParameterLayout): readonly NamedSlot[] {
  const names = new Map(tensors.map(({ tensor, name }) => [tensor, name]));
  return layout.tensors.flatMap((slot, tensor) => {
    const stored = names.get(tensor);
    return stored === undefined ? [] : [{ slot, stored }];
  });
}

/** @throws Error for a tensor that has not the shape in the files that the coordinator knows of */
function loadOf(
  weights: ModelWeights,
  tensors: readonly NamedSlot[],
  layout: ParameterLayout,
): LoadValues {
  const storedOf = new Map(tensors.map(({ slot, stored }) => [slot.name, stored]));
  for (const { slot, stored } of tensors) {
    const { numElements } = weights.info(stored);
    if (numElements === slot.size) continue;
    throw new Error(`${stored} has ${numElements} elements there, not ${slot.size}`);
  }
  return weightsIn(
    { ...layout, tensors: tensors.map(({ slot }) => slot) },
    {
      read: async (name, into, span) => weights.readFloat32(storedOf.get(name) ?? name, into, span),
    },
  );
}
