import type { ConnectionRefusal } from "#lib/core/events";
import type { SavedFile, SavedTensors, WrittenPlace } from "#lib/core/saved-files";

/** What a coordinator says to a reducer shard, and what it hears; the same to a thread and to a process. */

/** How far a shard came with the step in progress, or how the last one ended. */
export const shardStages = ["none", "open", "reduced", "applied", "discarded", "kept"] as const;
export type ShardStage = (typeof shardStages)[number];

/** Where a shard is: all that a coordinator needs that goes on with it. */
export interface ShardStatus {
  /** Whether it has weights, and publishes them. */
  readonly isLoaded: boolean;
  /** Updates that the weights have had; absent: none are published. */
  readonly version?: number;
  /** The step in progress, or else the last one that was; absent before the first. */
  readonly step?: number;
  /** Of that step. `kept`: a round of the Fisher information is over. */
  readonly stage: ShardStage;
  /** Rounds of the Fisher information that are in its sums. */
  readonly numSquaresKept: number;
  /** Whether the Fisher information is scaled, and steps are counted anew. */
  readonly isFisherFinished: boolean;
  /** Steps whose update was made, since it was loaded. */
  readonly numApplied: number;
  /** Calls to make an update that had been made. */
  readonly numAppliesRepeated: number;
}

/** A worker's promise of a group, as shards know it. */
export interface GrantedLease {
  readonly id: number;
  readonly workerId: string;
  readonly step: number;
  readonly group: number;
  /** Its bytes are compared with another worker's, whoever that is: by a hash that nobody can meet on purpose. */
  readonly isVerified: boolean;
}

/** What the coordinator tells its shards of who may send what. */
export type FenceChange =
  | {
      readonly kind: "admit";
      readonly workerId: string;
      readonly secret: string;
      /** Whom the worker's certificate names; absent without mutual TLS. */
      readonly certificate?: string | undefined;
    }
  | { readonly kind: "expel"; readonly workerId: string }
  | { readonly kind: "grant"; readonly lease: GrantedLease }
  | { readonly kind: "revoke"; readonly leases: readonly number[] };

/** An update as lib/optim has it. */
export interface ShardUpdate {
  readonly learningRate: number;
  readonly updateNumber: number;
  readonly gradientScale: number;
  /** By tensor; of one that the shard has no part of it may be empty. */
  readonly given?: readonly Float32Array[];
}

/** Weights of a directory with safetensors files. */
export interface StoredTensors {
  readonly directory: string;
  /** By index in the layout's tensors; what is not named has to be filled. */
  readonly tensors: readonly { readonly tensor: number; readonly name: string }[];
}

/** What a shard reads by itself, of its range. */
export interface ShardFiles {
  readonly masters?: StoredTensors;
  readonly frozen?: StoredTensors;
  /** Of a checkpoint, with masters and what the optimizer keeps. */
  readonly checkpoint?: {
    readonly directory: string;
    /** Of its record, as the coordinator sees it. */
    readonly sha256: string;
  };
}

/** A shard as another one calls it, and what that one shows then. */
export interface ShardPeer {
  /** HOST:PORT. */
  readonly address: string;
  readonly runId: string;
  readonly epoch: number;
  /** {@link peerName} of the shard that calls. */
  readonly name: string;
  readonly secret: string;
}

/** A shard of another range, as one that saves calls it. */
export interface RangePeer {
  readonly shardIndex: number;
  readonly peer: ShardPeer;
}

/** By which shards of a run know each other: no id of a worker has a slash. */
export const peerName = (shardIndex: number): string => `shard/${shardIndex}`;
export const isPeerName = (workerId: string): boolean => workerId.startsWith("shard/");

export type ShardCommand =
  | { readonly kind: "startOver" | "status" | "fisherSums" | "stats" | "finish" }
  | { readonly kind: "loadFiles"; readonly files: ShardFiles }
  | {
      readonly kind: "fill";
      readonly array: string;
      /** Byte of the array. */
      readonly offset: number;
      readonly values: Uint8Array;
    }
  | {
      readonly kind: "read";
      readonly array: string;
      readonly offset: number;
      readonly numBytes: number;
    }
  | { readonly kind: "saveState"; readonly place: WrittenPlace }
  | {
      readonly kind: "saveTensors";
      readonly place: WrittenPlace;
      readonly content: SavedTensors;
      /** Shards that keep more of the tensors. */
      readonly peers: readonly RangePeer[];
    }
  | { readonly kind: "publishInitial"; readonly version: number }
  | { readonly kind: "fence"; readonly change: FenceChange }
  | { readonly kind: "openStep" | "restartStep" | "reduce" | "discard"; readonly step: number }
  /** In place of `reduce`: the sum is the one that another shard has. */
  | { readonly kind: "takeSum"; readonly step: number; readonly peer: ShardPeer }
  /** In place of loading: all that another shard keeps, which is at `status`. */
  | { readonly kind: "takeState"; readonly status: ShardStatus; readonly peer: ShardPeer }
  | { readonly kind: "digest" }
  | { readonly kind: "penalise"; readonly step: number; readonly factor: number }
  | { readonly kind: "keepSquares"; readonly step: number; readonly first: boolean }
  | { readonly kind: "finishFisher"; readonly scale: number }
  | {
      readonly kind: "measure";
      readonly step: number;
      readonly measurement: { readonly pass: number; readonly update: ShardUpdate };
    }
  | { readonly kind: "apply"; readonly step: number; readonly update: ShardUpdate };

/** Sums of a tensor over some of its parts, as lib/optim has them. */
interface ShardSumWindow {
  readonly tensor: number;
  readonly at: number;
  readonly sums: Float64Array;
}

/** Of blocks: of squares of the gradient with the penalty in it, and of its distances. */
export interface PenalisedSums {
  readonly squares: Float64Array;
  readonly distances: Float64Array;
}

/** Payload bytes since the start. */
export interface ShardStats {
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** SHA-256 of what was read of a model's files; "" where nothing was. */
export interface LoadedFiles {
  readonly mastersSha256: string;
  readonly frozenSha256: string;
}

export type ShardAnswer =
  | { readonly kind: "done" }
  /** Block sums of a `reduce`, or of F. */
  | { readonly kind: "sums"; readonly sums: Float64Array }
  | { readonly kind: "penalised"; readonly sums: PenalisedSums }
  | { readonly kind: "windows"; readonly windows: readonly ShardSumWindow[] }
  | { readonly kind: "status"; readonly status: ShardStatus }
  /** SHA-256 of all that it keeps. */
  | { readonly kind: "digest"; readonly sha256: string }
  /** What was read. */
  | { readonly kind: "values"; readonly values: Uint8Array }
  | { readonly kind: "stats"; readonly stats: ShardStats }
  | { readonly kind: "loaded"; readonly files: LoadedFiles }
  /** The file that was written. */
  | ({ readonly kind: "saved" } & SavedFile);

/** A whole group of a lease is here; its bytes are kept, or another lease's were first. */
export interface ArrivedGroup {
  readonly step: number;
  readonly group: number;
  readonly lease: number;
  /** Hexadecimal; equal bytes have equal digests. */
  readonly digest: string;
}

export interface RefusedPush {
  /** The name that the call gave; whoever it was. */
  readonly workerId: string;
  readonly peer: string;
  readonly code: string;
  readonly reason: string;
}

/** What a shard's limits hold back. */
export type ShardLimitNotice =
  | {
      readonly type: "connectionsRefused";
      readonly reason: ConnectionRefusal;
      readonly numConnections: number;
    }
  /** Pushes that have no buffer, because groups before theirs are late. */
  | { readonly type: "pushesWaiting"; readonly numPushes: number };

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

/** Which shard of a run a process is to be. */
export interface OpenShard {
  readonly shardIndex: number;
  readonly numShards: number;
  readonly layoutJson: string;
  /** "": no weights stay as they are. */
  readonly frozenJson: string;
  readonly optimizerJson: string;
  readonly gradientGroups: number;
}
