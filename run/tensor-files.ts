import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import type { WrittenFile, WrittenPlace } from "#lib/checkpoint/writer-protocol";
import { WriterThreads } from "#lib/checkpoint/writer-threads";
import { maxShardBytes } from "#lib/config/index";
import type { TensorSlot } from "#lib/core/parameter-layout";
import type { KeptArray, KeptPiece } from "#lib/core/shard-arrays";
import { emaSlot } from "#lib/optim/index";
import { snapshotBytes } from "#coordinator/held-state";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import { emaFolder } from "./output-contents.js";
import type { PreparedRun } from "./prepared-run.js";

/** From here on threads of their own are worth their start, bytes of a snapshot. */
const threadedBytes = 32 << 20;
/** Encoding and hashing take about a second per gigabyte in each. */
const numWriterThreads = 2;

/** Where the file of a path is written. */
export type PlaceOf = (file: string) => WrittenPlace;
/** By path. */
export type WrittenFiles = ReadonlyMap<string, WrittenFile>;

interface WrittenModels extends Pick<CheckpointState, "step" | "numUpdates"> {
  readonly snapshot: Snapshot;
  readonly openTarget: OpenTarget | undefined;
}

/**
 * Writes files of tensors, in threads where they are large.
 *
 * @param begin begins them all
 * @param placeOf where threads write a file of a path; by default there
 * @returns those that threads and shards wrote, by path
 */
export async function writeTensorFiles(
  snapshot: Snapshot,
  placeOf: PlaceOf | undefined,
  begin: (
    openTarget: OpenTarget | undefined,
    onSaved: (file: string, saved: WrittenFile) => void,
  ) => readonly Promise<void>[],
): Promise<WrittenFiles> {
  const byShards = new Map<string, WrittenFile>();
  const isSmall = placeOf === undefined && snapshotBytes(snapshot) < threadedBytes;
  const threads = isSmall ? undefined : await WriterThreads.start(numWriterThreads, placeOf);
  try {
    const ended = await Promise.allSettled(
      begin(threads?.openTarget, (file, saved) => byShards.set(file, saved)),
    );
    for (const file of ended) if (file.status === "rejected") throw file.reason;
    return new Map([...(threads?.written ?? []), ...byShards]);
  } finally {
    // Whatever they still read is read then.
    await threads?.close();
  }
}

type Masters = Pick<KeptPiece, "range" | "masters">;

/** The trained weights, and their average in a folder of its own where there is one. */
export async function writeModels(
  run: PreparedRun,
  directory: string,
  { snapshot, step, numUpdates, openTarget }: WrittenModels,
): Promise<void> {
  await writeModel(run, directory, { step, pieces: snapshot, openTarget });
  if (run.config.ema_decay === null) return;
  const folder = join(directory, emaFolder);
  await mkdir(folder);
  const averages = snapshot.map(({ range, states }) => ({
    range,
    masters: states[emaSlot] ?? new Float32Array(),
  }));
  // Before the first update there is nothing to average.
  const pieces = numUpdates === 0 ? snapshot : averages;
  await writeModel(run, folder, { step, pieces, openTarget });
}

const writeModel = (
  run: PreparedRun,
  directory: string,
  {
    step,
    pieces,
    openTarget,
  }: Pick<WrittenModels, "step" | "openTarget"> & { readonly pieces: readonly Masters[] },
): Promise<void> =>
  run.parameters.save(directory, {
    valuesOf: (slot) => ({ parts: partsOfTensor(slot, pieces), finiteAfterStep: step }),
    openTarget,
    dtype: run.model.saveDtype,
    maxShardBytes: maxShardBytes(run.config),
  });

/** A tensor's float32 elements where they lie, in the shards that hold parts of it. */
function partsOfTensor(slot: TensorSlot, pieces: readonly Masters[]): readonly KeptArray[] {
  return pieces.flatMap(({ range, masters }) => {
    const start = Math.max(range.start, slot.offset);
    const end = Math.min(range.end, slot.offset + slot.size);
    return start >= end ? [] : [masters.subarray(start - range.start, end - range.start)];
  });
}
