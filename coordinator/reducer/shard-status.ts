/** How far a shard came with the step in progress, or how the last one ended. */
export type ShardStage = "none" | "open" | "reduced" | "applied" | "discarded" | "kept";

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
