import { encodeElements } from "#lib/checkpoint/elements";
import type { FileTarget, OpenTarget } from "#lib/checkpoint/file-target";
import { isShardPlace } from "#lib/checkpoint/have-written";
import { writeShardState } from "#lib/checkpoint/optimizer-state";
import { storedDtypeOf } from "#lib/checkpoint/safetensors-header";
import { writeSafetensors } from "#lib/checkpoint/safetensors-writer";
import { WriterThreads } from "#lib/checkpoint/writer-threads";
import { LockstepError } from "#lib/core/errors/index";
import type { ParameterLayout, TensorSlot } from "#lib/core/parameter-layout";
import type { SavedFile, SavedTensors, WrittenPlace } from "#lib/core/saved-files";
import type { KeptArray, ShardPiece } from "#lib/core/shard-arrays";
import { savedArray } from "#coordinator/reducer/peer-copies";
import type { PeerRange } from "./peer-range.js";

interface SavedPlace {
  readonly place: WrittenPlace;
  /** Throws where another coordinator has taken over meanwhile: nothing is written for the one before. */
  readonly assertCurrent: () => void;
}

/**
 * Writes a shard's masters and what its optimizer keeps into a checkpoint, from the shard's own memory, in a thread.
 *
 * @throws E_REDUCER_FILES for another file than one of a checkpoint that is being written; E_DISK_FULL,
 *   E_CHECKPOINT_WRITE, E_CHECKPOINT_STORE
 */
export async function saveShardState(saved: SavedPlace, piece: ShardPiece): Promise<SavedFile> {
  return written(saved, "state", (file, openTarget) => writeShardState(file, piece, openTarget));
}

/**
 * Writes tensors that begin in a shard's range, of which other shards may keep the rest: that is fetched in pieces.
 *
 * @param peers shards of later ranges
 * @throws as saveShardState; E_SHARD_COPY, E_MESSAGE_INVALID, E_NON_FINITE_WEIGHTS
 */
export async function saveShardTensors(
  saved: SavedPlace,
  { array, dtype, finiteAfterStep, tensors }: SavedTensors,
  of: {
    readonly layout: ParameterLayout;
    readonly piece: ShardPiece;
    readonly peers: readonly Pick<PeerRange, "range" | "elements">[];
  },
): Promise<SavedFile> {
  const { range } = of.piece;
  const own = savedArray(of.piece, array);
  if (own === undefined) throw invalid("array", `is ${array}, which the shard does not keep`);
  const slots = new Map<string, TensorSlot>();
  for (const { tensor, name } of tensors) {
    const slot = of.layout.tensors[tensor];
    if (slot === undefined || slot.offset < range.start || slot.offset >= range.end) {
      throw invalid("tensors", `names tensor ${tensor}, which does not begin in the shard's range`);
    }
    slots.set(name, slot);
  }
  const partsOf = ({ offset, size }: TensorSlot): readonly KeptArray[] => {
    const end = offset + size;
    const parts: KeptArray[] = [own.subarray(offset - range.start, end - range.start)];
    let next = range.end;
    for (const peer of of.peers) {
      if (next >= end) break;
      if (peer.range.start !== next) break;
      parts.push(peer.elements(array, next, Math.min(end, peer.range.end)));
      next = peer.range.end;
    }
    if (next < end) throw invalid("peers", `has nobody who keeps element ${next}`);
    return parts;
  };
  const shapes = tensors.map(({ name }) => ({
    ...{ name, shape: slots.get(name)?.shape ?? [], dtype: storedDtypeOf[dtype] },
  }));
  return written(saved, "model", async (file, openTarget) => {
    await writeSafetensors(
      file,
      shapes,
      (name) => {
        const parts = partsOf(slots.get(name) as TensorSlot);
        return encodeElements({ parts, finiteAfterStep }, dtype, name);
      },
      { openTarget },
    );
  });
}

async function written(
  { place, assertCurrent }: SavedPlace,
  kind: Parameters<typeof isShardPlace>[1],
  write: (file: string, openTarget: OpenTarget) => Promise<void>,
): Promise<SavedFile> {
  const file = "file" in place ? place.file : place.key;
  if (!isShardPlace(place, kind)) {
    const reason = "it is no file of a shard in a checkpoint or a result that is being written";
    throw new LockstepError("E_REDUCER_FILES", { directory: file, reason });
  }
  const writers = await WriterThreads.start(1, () => place);
  try {
    await write(
      file,
      async (path) => new CurrentTarget(await writers.openTarget(path), assertCurrent),
    );
    const saved = writers.written.get(file);
    if (saved === undefined) throw new RangeError(`${file} was not written`);
    return saved;
  } finally {
    await writers.close();
  }
}

/** Is given up where the coordinator that asked for it is not the run's any more. */
class CurrentTarget implements FileTarget {
  readonly #target: FileTarget;
  readonly #assertCurrent: () => void;

  constructor(target: FileTarget, assertCurrent: () => void) {
    this.#target = target;
    this.#assertCurrent = assertCurrent;
  }

  async write(...given: Parameters<FileTarget["write"]>): Promise<void> {
    this.#assertCurrent();
    await this.#target.write(...given);
  }

  async writeElements(...given: Parameters<FileTarget["writeElements"]>): Promise<void> {
    this.#assertCurrent();
    await this.#target.writeElements(...given);
  }

  async close(): Promise<number> {
    try {
      this.#assertCurrent();
    } catch (error) {
      await this.#target.abandon();
      throw error;
    }
    return this.#target.close();
  }

  async abandon(): Promise<void> {
    await this.#target.abandon();
  }
}

const invalid = (field: string, reason: string): LockstepError =>
  new LockstepError("E_MESSAGE_INVALID", { message: "SaveTensors", field, reason });
