import type { EventBus } from "#lib/wire/event-bus";
import type { ShardGroup } from "./shards.js";

/** Tells the bus what the shards received and sent since it told it last. */
export class TransferMeter {
  readonly #bus: EventBus;
  readonly #shards: ShardGroup;
  #before: readonly { readonly receivedBytes: number; readonly sentBytes: number }[] = [];

  constructor(bus: EventBus, shards: ShardGroup) {
    this.#bus = bus;
    this.#shards = shards;
  }

  async publish(): Promise<void> {
    const stats = await this.#shards.stats();
    for (const [shard, { receivedBytes, sentBytes }] of stats.entries()) {
      const before = this.#before[shard] ?? { receivedBytes: 0, sentBytes: 0 };
      const tell = (direction: "gradients" | "parameters", bytes: number): void => {
        if (bytes > 0) this.#bus.publish({ type: "bytes.transferred", direction, shard, bytes });
      };
      tell("gradients", receivedBytes - before.receivedBytes);
      tell("parameters", sentBytes - before.sentBytes);
    }
    this.#before = stats;
  }
}
