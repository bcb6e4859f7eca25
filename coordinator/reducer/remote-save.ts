import { type ErrorCode, isLockstepError } from "#lib/core/errors/index";
import type { SavedFile, ShardFileWriter, WrittenPlace } from "#lib/core/saved-files";
import type { RangePeer, ShardAnswer, ShardCommand } from "#lib/wire/reducer-messages";
import type { KeptFiles } from "#coordinator/kept-elsewhere";

interface RemoteSaveParts {
  readonly shardIndex: number;
  readonly address: string;
  /** A line for a person. */
  readonly note: (text: string) => void;
  /** Beside other calls, which do not change what is saved. */
  readonly call: (command: ShardCommand) => Promise<ShardAnswer>;
}

/** What a process cannot do by itself, and the coordinator can in its place. */
const cannot: Partial<Readonly<Record<ErrorCode, string>>> = {
  E_CHECKPOINT_WRITE: "cannot write into output_dir",
  E_CHECKPOINT_STORE: "cannot write into the store",
  E_SHARD_COPY: "cannot fetch what it saves from another shard",
};
/** A process without a way to the store tries for long, while training waits. */
const storeRetryMs = 600_000;

/** How a shard in another process writes its part of a checkpoint, or of a result, by itself. */
export class RemoteSave implements KeptFiles {
  readonly #parts: RemoteSaveParts;
  readonly #told = new Set<string>();
  #noStoreUntilMs = Number.NEGATIVE_INFINITY;

  constructor(parts: RemoteSaveParts) {
    this.#parts = parts;
  }

  async saveState(place: WrittenPlace): Promise<SavedFile | undefined> {
    return this.#save(place, { kind: "saveState", place });
  }

  async saveTensors(
    place: WrittenPlace,
    content: Parameters<ShardFileWriter["saveTensors"]>[1],
    peers: readonly RangePeer[],
  ): Promise<SavedFile | undefined> {
    return this.#save(place, { kind: "saveTensors", place, content, peers });
  }

  /** @returns undefined where the process cannot write there: its arrays are read then */
  async #save(place: WrittenPlace, command: ShardCommand): Promise<SavedFile | undefined> {
    const isStore = "store" in place;
    if (isStore && performance.now() < this.#noStoreUntilMs) return undefined;
    try {
      const answer = await this.#parts.call(command);
      if (answer.kind !== "saved") return undefined;
      const { sizeBytes, sha256, pieces } = answer;
      return { sizeBytes, sha256, pieces };
    } catch (error) {
      const what = isLockstepError(error) ? cannot[error.code] : undefined;
      if (what === undefined) throw error;
      if (isStore) this.#noStoreUntilMs = performance.now() + storeRetryMs;
      this.#tell(what, (error as Error).message);
      return undefined;
    }
  }

  #tell(what: string, reason: string): void {
    if (this.#told.has(what)) return;
    this.#told.add(what);
    const { shardIndex, address, note } = this.#parts;
    note(
      `shard ${shardIndex} at ${address} ${what}, so the coordinator writes its part of what is saved: ${reason}`,
    );
  }
}
