import type { LossTerms, StepUpdate } from "#lib/optim/index";
import type { CoordinatorOptions } from "./options.js";
import type { AgreedStep } from "./run-state.js";
import type { ShardGroup } from "./shards.js";
import type { TrainingStep } from "./training-step.js";
import { begunAgain, updatedShards } from "./whole-sums.js";

interface StepParts {
  readonly options: Pick<CoordinatorOptions, "bus" | "journal">;
  readonly shards: ShardGroup;
  readonly updates: StepUpdate;
  readonly step: number;
  /** What a coordinator that died has left of this step; absent: nobody has begun it. */
  readonly leftOpen: { readonly agreed?: AgreedStep } | undefined;
  readonly newWork: () => TrainingStep;
  /** Has workers do it. Rejects where the run fails, or is stopped, meanwhile. */
  readonly untilComplete: (work: TrainingStep) => Promise<void>;
  /** Rejects where the run fails meanwhile. */
  readonly orFailure: <T>(promise: Promise<T>) => Promise<T>;
  /** Called when shards begin to be ahead of each other, and when they are not any more. */
  readonly updating: (isUpdating: boolean) => void;
}

interface MadeStep extends AgreedStep {
  /** Those of before the step. */
  readonly terms: LossTerms;
  readonly update: Awaited<ReturnType<StepUpdate["run"]>>;
  /** Of `performance.now()`. */
  readonly startedAt: number;
  readonly arrivedAt: number;
}

/**
 * A step from its first lease to its update. What workers agreed on is in the journal before shards use it, so a
 * coordinator that takes over asks shards for the same again, and does not ask workers.
 */
export async function makeStep(parts: StepParts): Promise<MadeStep> {
  const { options, shards, updates, step, leftOpen, orFailure } = parts;
  const { bus, journal } = options;
  const { terms } = updates;
  const startedAt = performance.now() - 1000 * (leftOpen?.agreed?.seconds ?? 0);
  let arrivedAt = performance.now();
  const agreeOn = async (work: TrainingStep): Promise<AgreedStep> => {
    await parts.untilComplete(work);
    arrivedAt = performance.now();
    const metrics = work.scores();
    const agreed: AgreedStep = {
      ...{ step, isMeasurement: false, sums: terms.sums(work.sums()) },
      ...(metrics === undefined ? {} : { metrics }),
      seconds: (arrivedAt - startedAt) / 1000,
    };
    await orFailure(Promise.resolve(journal?.agreed(agreed)));
    return agreed;
  };
  const begin = async (): Promise<TrainingStep> => {
    await orFailure(shards.openStep(step));
    // Bytes of leases that nobody knows any more.
    if (leftOpen !== undefined) await orFailure(shards.restartStep(step));
    return parts.newWork();
  };
  let work = leftOpen?.agreed === undefined ? await begin() : undefined;
  let agreed = leftOpen?.agreed ?? (await agreeOn(work as TrainingStep));
  /** @returns false where nobody else can compute it */
  const computeAgain = async (): Promise<boolean> => {
    if (work === undefined) {
      const statuses = await shards.status();
      if (statuses.some((each) => each.step === step && each.stage === "discarded")) return false;
      await journal?.reopened();
      await shards.restartStep(step);
      work = parts.newWork();
      return true;
    }
    await journal?.reopened();
    if (await work.confirm()) return true;
    await journal?.agreed(agreed);
    return false;
  };
  /** A shard was lost with groups, and its mirror goes on: what was agreed on stays. */
  const sendAgain = async (): Promise<void> => {
    parts.updating(false);
    work = await begunAgain(shards, step, work, parts.newWork);
    await parts.untilComplete(work);
    arrivedAt = performance.now();
    parts.updating(true);
  };
  parts.updating(true);
  const update = await orFailure(
    updates.run(updatedShards(shards, sendAgain), {
      ...{ step, loss: terms.loss(agreed.sums), sums: () => agreed.sums },
      confirmNonFinite: async () => {
        if (!(await computeAgain())) return false;
        parts.updating(false);
        bus.publish({
          type: "note",
          text: `the gradient of step ${step + 1} is not finite: other workers compute it too`,
        });
        agreed = await agreeOn(work as TrainingStep);
        parts.updating(true);
        return true;
      },
    }),
  );
  return { ...agreed, terms, update, startedAt, arrivedAt };
}
