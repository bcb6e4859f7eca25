import { awakeMs } from "#lib/core/awake-clock";
import { finishFisher } from "#lib/optim/index";
import type { Court } from "./court.js";
import type { LeaseTable } from "./leases.js";
import { defaultBytesAfterReportMs } from "./limits.js";
import type { CoordinatorOptions } from "./options.js";
import type { RunPhases } from "./run-phases.js";
import type { AgreedStep, FisherProgress } from "./run-state.js";
import type { ShardGroup } from "./shards.js";
import { TrainingStep } from "./training-step.js";
import { begunAgain, wholeSums } from "./whole-sums.js";

interface FisherRunParts {
  /** What a coordinator that died had come to, or the beginning. */
  readonly progress: FisherProgress;
  /** What shards may have begun or done of the next round, once. */
  readonly leftOpen: () => { readonly agreed?: AgreedStep } | undefined;
  /** Called when workers agreed on a round, before shards use it. */
  readonly agreed: (agreed: AgreedStep) => Promise<void>;
  /** Called when the shards have come that far, before they go on. */
  readonly kept: (progress: FisherProgress) => Promise<void>;
  readonly options: CoordinatorOptions;
  readonly shards: ShardGroup;
  readonly court: Court;
  readonly phases: RunPhases;
  readonly newLeases: (numItems: number) => LeaseTable;
  /** Has workers do a round. Rejects where the run fails, or is stopped, meanwhile. */
  readonly untilComplete: (round: TrainingStep) => Promise<void>;
  /** Rejects where the run fails meanwhile. */
  readonly orFailure: <T>(promise: Promise<T>) => Promise<T>;
  readonly onReopened: () => void;
}

/**
 * The measurement of the Fisher information before the first step: rounds of leased groups, as steps are, whose sums
 * of squared gradients the shards keep. Nothing of it is saved before the first step has been made.
 */
export async function measureFisher(parts: FisherRunParts): Promise<void> {
  const { options, shards, court, newLeases, orFailure } = parts;
  const { fisher, gradientGroups, bus, job } = options;
  if (fisher === undefined) return;
  const startedAt = performance.now();
  for (let round = parts.progress.numRounds; round < fisher.numRounds; round++) {
    parts.phases.begin(
      "measuring",
      `the Fisher information of ${fisher.numRows} general rows, round ${round + 1} of ${fisher.numRounds}`,
    );
    const newWork = (): TrainingStep =>
      new TrainingStep({
        step: round,
        version: 0,
        gradScales: [],
        isMeasurement: true,
        numGroups: gradientGroups,
        job,
        microBatches: (group) => fisher.microBatches(round, group),
        bytesAfterReportMs: options.bytesAfterReportMs ?? defaultBytesAfterReportMs,
        newLeases: () => newLeases(gradientGroups),
        shards,
        jury: court.juryOf("measurement", round),
        bus,
        now: awakeMs,
        onReopened: parts.onReopened,
      });
    const leftOpen = parts.leftOpen();
    let work: TrainingStep | undefined;
    if (leftOpen?.agreed === undefined) {
      await orFailure(shards.openStep(round));
      if (leftOpen !== undefined) await orFailure(shards.restartStep(round));
      const beganAt = performance.now();
      work = newWork();
      await parts.untilComplete(work);
      const seconds = (performance.now() - beganAt) / 1000;
      await orFailure(parts.agreed({ step: round, isMeasurement: true, sums: [], seconds }));
    }
    const again = async (): Promise<void> => {
      work = await begunAgain(shards, round, work, newWork);
      await parts.untilComplete(work);
    };
    await orFailure(wholeSums(shards, round, again));
    await orFailure(shards.keepSquares(round, round === 0));
    await orFailure(parts.kept({ numRounds: round + 1, isDone: false }));
  }
  const mean = await orFailure(finishFisher(shards, job.layout, fisher));
  await orFailure(parts.kept({ numRounds: fisher.numRounds, isDone: true }));
  bus.publish({
    type: "fisher.measured",
    numRows: fisher.numRows,
    meanSquare: mean,
    seconds: (performance.now() - startedAt) / 1000,
  });
}
