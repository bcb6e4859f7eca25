import type { TrainingEngine } from "#lib/core/job";
import { finishFisher, type ShardArithmetic } from "#lib/optim/index";
import type { PreparedRun } from "./prepared-run.js";

/** What the measurement of the Fisher information came to. */
export interface MeasuredFisher {
  readonly numRows: number;
  /** Of a row's gradient: the mean of its squares, before it is normalised. */
  readonly meanSquare: number;
  readonly seconds: number;
}

/** Where a process has its shards, and how gradients reach them. */
interface LocalShards {
  readonly shards: readonly ShardArithmetic[];
  /** The whole space in wire form. */
  readonly gradients: Uint8Array;
  readonly wireRange: (shard: ShardArithmetic) => [number, number];
}

/** Measures the Fisher information of a run with EWC in one process, in the groups and the order of a cluster. */
export async function measureFisherLocal(
  { fisher, config, job }: Pick<PreparedRun, "fisher" | "config" | "job">,
  engine: TrainingEngine,
  { shards, gradients, wireRange }: LocalShards,
): Promise<MeasuredFisher> {
  if (fisher === undefined || engine.accumulateSquares === undefined) {
    throw new RangeError("the engine squares no gradients, which ewc_lambda needs");
  }
  const startedAt = performance.now();
  const { numRows, numRounds } = fisher;
  for (let round = 0; round < numRounds; round++) {
    for (let group = 0; group < config.gradient_groups; group++) {
      const batches = fisher.microBatches(round, group);
      batches.forEach((batch, index) => {
        const isLast = index === batches.length - 1;
        engine.accumulateSquares?.(batch, index === 0, isLast ? gradients : undefined);
      });
      for (const shard of shards) {
        shard.addGroup(gradients.subarray(...wireRange(shard)), group === 0);
      }
    }
    for (const shard of shards) shard.keepSquares(round === 0);
  }
  const meanSquare = await finishFisher(
    {
      fisherSums: async () => shards.flatMap((shard) => [...shard.fisherSums()]),
      finishFisher: async (scale) => {
        for (const shard of shards) shard.finishFisher(scale);
      },
    },
    job.layout,
    fisher,
  );
  return { numRows, meanSquare, seconds: (performance.now() - startedAt) / 1000 };
}
