import type { ShardArrays } from "#lib/core/shard-arrays";
import type { Measurement, SumWindow, Update } from "#lib/optim/index";
import type { RefusedPush, StartShardOptions } from "#coordinator/shards";
import type { FenceChange } from "./fence.js";
import type { ArrivedGroup } from "./shard-state.js";

/** Messages between the coordinator's main thread and the thread of a shard. */

export interface ShardThreadOptions extends StartShardOptions {
  /** int64 [2]: bytes of gradients received and of parameters sent. Written by the shard only. */
  readonly transferredBytes: BigInt64Array;
}

export const receivedBytesIndex = 0;
export const sentBytesIndex = 1;

export type ShardCommand =
  | { readonly kind: "publishInitial"; readonly version: number }
  | { readonly kind: "fence"; readonly change: FenceChange }
  | { readonly kind: "openStep"; readonly step: number }
  | { readonly kind: "restartStep"; readonly step: number }
  | { readonly kind: "reduce"; readonly step: number }
  | { readonly kind: "measure"; readonly step: number; readonly measurement: Measurement }
  | { readonly kind: "apply"; readonly step: number; readonly update: Update }
  | { readonly kind: "discard"; readonly step: number }
  | { readonly kind: "snapshot"; readonly into: ShardArrays }
  | { readonly kind: "close" };

/** Block sums of a `reduce`, sums of tensors of a `measure`, nothing of others. */
export type ShardAnswer = Float64Array | readonly SumWindow[] | undefined;

/** What a shard says of itself when it has started. */
export interface ShardReady {
  readonly port: number;
  readonly arrays: ShardArrays;
}

export type ShardNotice =
  | { readonly type: "arrived"; readonly arrived: ArrivedGroup }
  | ({ readonly type: "refused" } & RefusedPush)
  | {
      readonly type: "rpc";
      readonly method: string;
      readonly code: string;
      readonly seconds: number;
    };
