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
    if (this.#isWithoutStore(place)) return undefined;
    const command = { kind: "saveState", place } as const;
    return this.#ask(command).catch((error: unknown) => this.#leave(error));
  }

  async saveTensors(
    place: WrittenPlace,
    content: Parameters<ShardFileWriter["saveTensors"]>[1],
    peersNow: Parameters<KeptFiles["saveTensors"]>[2],
  ): Promise<SavedFile | undefined> {
    if (this.#isWithoutStore(place)) return undefined;
    for (let peers = await peersNow(); ; ) {
      try {
        return await this.#ask({ kind: "saveTensors", place, content, peers });
      } catch (error) {
        if (!isLockstepError(error) || error.code !== "E_SHARD_COPY") return this.#leave(error);
        const before = addressesOf(peers);
        peers = await peersNow();
        // A mirror may have taken the place of one that is gone.
        if (addressesOf(peers) === before) return this.#leave(error);
      }
    }
  }

  #isWithoutStore(place: WrittenPlace): boolean {
    return "store" in place && performance.now() < this.#noStoreUntilMs;
  }

  async #ask(command: ShardCommand): Promise<SavedFile | undefined> {
    const answer = await this.#parts.call(command);
    if (answer.kind !== "saved") return undefined;
    const { sizeBytes, sha256, pieces } = answer;
    return { sizeBytes, sha256, pieces };
  }

  /** The coordinator reads the arrays and writes the file then. @throws the error, where it could not either */
  #leave(error: unknown): undefined {
    const { code, message } = isLockstepError(error) ? error : {};
    const what = code && cannot[code];
    if (what === undefined) throw error;
    if (code === "E_CHECKPOINT_STORE") this.#noStoreUntilMs = performance.now() + storeRetryMs;
    if (this.#told.has(what)) return;
    this.#told.add(what);
    const { shardIndex, address, note } = this.#parts;
    note(
      `shard ${shardIndex} at ${address} ${what}, so the coordinator writes its part of what is saved: ${message}`,
    );
  }
}

const addressesOf = (peers: readonly RangePeer[]): string =>
  peers.map(({ peer }) => peer.address).join();
