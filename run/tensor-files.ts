import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import type { HaveWritten } from "#lib/checkpoint/have-written";
import { WriterThreads } from "#lib/checkpoint/writer-threads";
import type { TensorKeeper } from "#lib/checkpoint/written-weights";
import { maxShardBytes } from "#lib/config/index";
import type { TensorSlot } from "#lib/core/parameter-layout";
import type { SavedArray, SavedFile, WrittenPlace } from "#lib/core/saved-files";
import type { KeptArray, KeptPiece } from "#lib/core/shard-arrays";
import { emaSlot } from "#lib/optim/index";
import { snapshotBytes } from "#coordinator/held-state";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import { emaFolder } from "./output-contents.js";
import type { PreparedRun } from "./prepared-run.js";
import { counted } from "./relayed-arrays.js";

/** From here on threads of their own are worth their start, bytes of a snapshot. */
const threadedBytes = 32 << 20;
/** Encoding and hashing take about a second per gigabyte in each. */
const numWriterThreads = 2;

/** Where the file of a path is written. */
export type PlaceOf = (file: string) => WrittenPlace;
/** By path. */
export type WrittenFiles = ReadonlyMap<string, SavedFile>;

interface TensorFiles {
  readonly written: WrittenFiles;
  /** Read here from shards of other processes, which could not write it themselves. */
  readonly relayedBytes: number;
}

/** How files of tensors are written. */
interface WritingHow {
  readonly snapshot: Snapshot;
  readonly openTarget: OpenTarget | undefined;
  /** How shards of other processes write their files. */
  readonly haveWritten: HaveWritten;
}

type WrittenModels = WritingHow & Pick<CheckpointState, "step" | "numUpdates">;

/**
 * Writes files of tensors: shards of other processes theirs, threads of this one the rest where it is large.
 *
 * @param begin begins them all
 * @param placeOf where threads write a file of a path; by default there
 * @returns those that threads and shards wrote
 */
export async function writeTensorFiles(
  snapshot: Snapshot,
  placeOf: PlaceOf | undefined,
  begin: (how: WritingHow) => readonly Promise<void>[],
): Promise<TensorFiles> {
  let relayedBytes = 0;
  const byShards = new Map<string, SavedFile>();
  const haveWritten: HaveWritten = async (file, save) => {
    const saved = await save(placeOf?.(file) ?? { file });
    if (saved === undefined) return false;
    // Of an object the store tells it when all are there.
    if (placeOf === undefined && (await sizeOf(file)) !== saved.sizeBytes) return false;
    byShards.set(file, saved);
    return true;
  };
  const isSmall = placeOf === undefined && snapshotBytes(snapshot) < threadedBytes;
  const threads = isSmall ? undefined : await WriterThreads.start(numWriterThreads, placeOf);
  try {
    const how = {
      snapshot: counted(snapshot, (numBytes) => {
        relayedBytes += numBytes;
      }),
      ...{ openTarget: threads?.openTarget, haveWritten },
    };
    const ended = await Promise.allSettled(begin(how));
    for (const file of ended) if (file.status === "rejected") throw file.reason;
    return { written: new Map([...(threads?.written ?? []), ...byShards]), relayedBytes };
  } finally {
    // Whatever they still read is read then.
    await threads?.close();
  }
}

const sizeOf = async (file: string): Promise<number | undefined> =>
  stat(file).then(
    ({ size }) => size,
    () => undefined,
  );

type Masters = Pick<KeptPiece, "range" | "masters" | "files">;

/** The trained weights, and their average in a folder of its own where there is one. */
export async function writeModels(
  run: PreparedRun,
  directory: string,
  { snapshot, numUpdates, ...how }: WrittenModels,
): Promise<void> {
  await writeModel(run, directory, { ...how, pieces: snapshot, array: "masters" });
  if (run.config.ema_decay === null) return;
  const folder = join(directory, emaFolder);
  await mkdir(folder);
  const averages = snapshot.map(({ states, ...piece }) => ({
    ...piece,
    masters: states[emaSlot] ?? new Float32Array(),
  }));
  // Before the first update there is nothing to average.
  const isAveraged = numUpdates > 0;
  await writeModel(run, folder, {
    ...how,
    pieces: isAveraged ? averages : snapshot,
    array: isAveraged ? "average" : "masters",
  });
}

type WrittenModel = Pick<WrittenModels, "step" | "openTarget" | "haveWritten"> & {
  readonly pieces: readonly Masters[];
  readonly array: SavedArray;
};

async function writeModel(
  run: PreparedRun,
  directory: string,
  written: WrittenModel,
): Promise<void> {
  const { step, pieces, openTarget } = written;
  const keepers = keepersOf(written);
  const { tensors } = run.parameters.layout;
  await run.parameters.save(directory, {
    valuesOf: (slot) => ({ parts: partsOfTensor(slot, pieces), finiteAfterStep: step }),
    keptOf: (slot) => {
      const begins = pieces.findIndex(
        ({ range }) => range.start <= slot.offset && slot.offset < range.end,
      );
      const keeper = keepers[begins];
      return keeper === undefined ? undefined : { keeper, tensor: tensors.indexOf(slot) };
    },
    openTarget,
    dtype: run.model.saveDtype,
    maxShardBytes: maxShardBytes(run.config),
  });
}

/** By shard: what writes the tensors that begin there; undefined for one of this process. */
const keepersOf = ({
  pieces,
  array,
  step,
  haveWritten,
}: WrittenModel): readonly (TensorKeeper | undefined)[] =>
  pieces.map(
    ({ files }, index) =>
      files && {
        index,
        write: (file, tensors, dtype) =>
          haveWritten(file, (place) =>
            files.saveTensors(place, { array, dtype, finiteAfterStep: step, tensors }),
          ),
      },
  );

/** A tensor's float32 elements where they lie, in the shards that hold parts of it. */
function partsOfTensor(slot: TensorSlot, pieces: readonly Masters[]): readonly KeptArray[] {
  return pieces.flatMap(({ range, masters }) => {
    const start = Math.max(range.start, slot.offset);
    const end = Math.min(range.end, slot.offset + slot.size);
    return start >= end ? [] : [masters.subarray(start - range.start, end - range.start)];
  });
}
