import type { ShardArrays } from "#lib/core/shard-arrays";
import type { ShardCommand } from "#lib/wire/reducer-messages";
import type { StartShardOptions } from "#coordinator/shards";

/** Messages between the coordinator's main thread and the thread of a shard. */

export interface ShardThreadOptions extends Omit<StartShardOptions, "frozen"> {
  /** The shard's range of the frozen weights in wire form, on shared memory; absent: there are none. */
  readonly frozen: Uint8Array | undefined;
  /** int64 [2]: bytes of gradients received and of parameters sent. Written by the shard only. */
  readonly transferredBytes: BigInt64Array;
}

export const receivedBytesIndex = 0;
export const sentBytesIndex = 1;

/** What a shard is asked for wherever it runs, and what only a thread of this process is. */
export type ShardThreadCommand =
  | ShardCommand
  | { readonly kind: "snapshot"; readonly into: ShardArrays }
  | { readonly kind: "close" };

/** What a shard says of itself when it has started. */
export interface ShardReady {
  readonly port: number;
  readonly arrays: ShardArrays;
}
