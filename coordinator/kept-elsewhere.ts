import type { SavedFile, SavedTensors, ShardFileWriter, WrittenPlace } from "#lib/core/saved-files";
import type { KeptPiece } from "#lib/core/shard-arrays";
import type { RangePeer } from "#lib/wire/reducer-messages";

/** What a shard in another process keeps, and how it writes files of that. */
export interface KeptElsewhere extends Omit<KeptPiece, "range" | "files"> {
  readonly files?: KeptFiles;
}

export interface KeptFiles extends Pick<ShardFileWriter, "saveState"> {
  /** @param peersNow shards that keep more of the tensors; asked again where one of them is gone */
  saveTensors(
    place: WrittenPlace,
    content: SavedTensors,
    peersNow: () => Promise<readonly RangePeer[]>,
  ): Promise<SavedFile | undefined>;
}
