import type { ConnectionRefusal } from "#lib/core/events";
import type { ShardArrays } from "#lib/core/shard-arrays";
import type { Measurement, SumWindow, Update } from "#lib/optim/index";
import type { RefusedPush, StartShardOptions } from "#coordinator/shards";
import type { FenceChange } from "./fence.js";
import type { ArrivedGroup } from "./shard-state.js";
import type { ShardStatus } from "./shard-status.js";

/** Messages between the coordinator's main thread and the thread of a shard. */

export interface ShardThreadOptions extends StartShardOptions {
  /** int64 [2]: bytes of gradients received and of parameters sent. Written by the shard only. */
  readonly transferredBytes: BigInt64Array;
}

export const receivedBytesIndex = 0;
export const sentBytesIndex = 1;

export type ShardCommand =
  | { readonly kind: "startOver" }
  | { readonly kind: "status" }
  | { readonly kind: "publishInitial"; readonly version: number }
  | { readonly kind: "fence"; readonly change: FenceChange }
  | { readonly kind: "openStep"; readonly step: number }
  | { readonly kind: "restartStep"; readonly step: number }
  | { readonly kind: "reduce"; readonly step: number }
  | { readonly kind: "penalise"; readonly step: number; readonly factor: number }
  | { readonly kind: "keepSquares"; readonly step: number; readonly first: boolean }
  | { readonly kind: "fisherSums" }
  | { readonly kind: "finishFisher"; readonly scale: number }
  | { readonly kind: "measure"; readonly step: number; readonly measurement: Measurement }
  | { readonly kind: "apply"; readonly step: number; readonly update: Update }
  | { readonly kind: "discard"; readonly step: number }
  | { readonly kind: "snapshot"; readonly into: ShardArrays }
  | { readonly kind: "close" };

/** Block sums of a `reduce` or of F, two kinds after a `penalise`, sums of tensors of a `measure`, where it is of a
 *  `status`, nothing of others. */
export type ShardAnswer =
  | Float64Array
  | PenalisedSums
  | readonly SumWindow[]
  | ShardStatus
  | undefined;

/** Of blocks: of squares of the gradient with the penalty in it, and of its distances. */
export interface PenalisedSums {
  readonly squares: Float64Array;
  readonly distances: Float64Array;
}

/** What a shard says of itself when it has started. */
export interface ShardReady {
  readonly port: number;
  readonly arrays: ShardArrays;
}

export type ShardNotice =
  | ShardLimitNotice
  | { readonly type: "arrived"; readonly arrived: ArrivedGroup }
  | ({ readonly type: "refused" } & RefusedPush)
  | {
      readonly type: "rpc";
      readonly method: string;
      readonly code: string;
      readonly seconds: number;
    };

/** What a shard's limits hold back. */
export type ShardLimitNotice =
  | {
      readonly type: "connectionsRefused";
      readonly reason: ConnectionRefusal;
      readonly numConnections: number;
    }
  /** Pushes that have no buffer, because groups before theirs are late. */
  | { readonly type: "pushesWaiting"; readonly numPushes: number };
