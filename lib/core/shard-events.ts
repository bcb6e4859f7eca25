/** What happens to reducer shards and their copies. */
export type ShardEvent =
  | {
      /** A reducer shard is no more, with what it kept. */
      readonly type: "shard.lost";
      readonly shard: number;
      readonly reason: string;
    }
  | {
      /** The process with a shard is lost; its mirror is the shard now, and no step is lost. */
      readonly type: "shard.takenOver";
      readonly shard: number;
      /** HOST:PORT of the one that is the shard now. */
      readonly address: string;
      readonly reason: string;
    }
  | {
      /** A shard has one copy only. */
      readonly type: "mirror.lost";
      readonly shard: number;
      /** "": it was not there when the run began. */
      readonly address: string;
      readonly reason: string;
    }
  | {
      /** A shard has a second copy. */
      readonly type: "mirror.inPlace";
      readonly shard: number;
      readonly address: string;
      /** That it took to copy what the shard keeps. */
      readonly seconds: number;
    }
  | {
      /** Both copies of a shard have the same bits. */
      readonly type: "mirror.compared";
      readonly shard: number;
      /** That it took to hash all that they keep. */
      readonly seconds: number;
    }
  | {
      /** What a shard kept is lost: all shards go back to what was saved, and the steps since are made again. */
      readonly type: "shards.rolledBack";
      /** Steps that are kept. */
      readonly step: number;
      /** Steps that are made again. */
      readonly numSteps: number;
      /** The checkpoint; absent: the run begins anew. */
      readonly directory?: string;
    };
