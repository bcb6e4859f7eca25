import { isShardStateFile, writeShardState } from "#lib/checkpoint/optimizer-state";
import { WriterThreads } from "#lib/checkpoint/writer-threads";
import { LockstepError } from "#lib/core/errors/index";
import type { SavedFile, ShardPiece } from "#lib/core/shard-arrays";

/**
 * Writes a shard's masters and what its optimizer keeps into a checkpoint, from the shard's own memory, in a thread.
 *
 * @throws E_REDUCER_FILES for another file than one of a checkpoint that is being written; E_DISK_FULL,
 *   E_CHECKPOINT_WRITE
 */
export async function saveShardState(file: string, piece: ShardPiece): Promise<SavedFile> {
  if (!isShardStateFile(file)) {
    const reason = "it is no file of a shard in a checkpoint that is being written";
    throw new LockstepError("E_REDUCER_FILES", { directory: file, reason });
  }
  const writers = await WriterThreads.start(1);
  try {
    await writeShardState(file, piece, writers.openTarget);
    const written = writers.written.get(file);
    if (written === undefined) throw new RangeError(`${file} was not written`);
    return written;
  } finally {
    await writers.close();
  }
}
