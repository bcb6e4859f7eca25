import type { ShardStats } from "#lib/wire/reducer-messages";

const none: ShardStats = { receivedBytes: 0, sentBytes: 0 };

/** Bytes of a shard that goes from one process to another: they rise. */
export class PrimaryStats {
  #before = none;
  #latest = none;

  /** @param latest of the process that is the shard now. @returns of all that were */
  add(latest: ShardStats): ShardStats {
    this.#latest = latest;
    return {
      receivedBytes: this.#before.receivedBytes + latest.receivedBytes,
      sentBytes: this.#before.sentBytes + latest.sentBytes,
    };
  }

  /** Another process is the shard now. */
  moved(): void {
    this.#before = this.add(this.#latest);
    this.#latest = none;
  }
}
