import { problemsOfResult, type Result, resultOf } from "./account.js";
import { type ChaosInputs, totalSteps } from "./job.js";
import type { Schedule } from "./schedule.js";
import { type Outcome, Stage, type StageOptions } from "./stage.js";

/** Runs schedules and compares their results with those of runs that nothing happened to. */
export class Harness {
  readonly #inputs: ChaosInputs;
  readonly #isReal: boolean;
  /** By what decides the result's bytes. */
  readonly #undisturbed = new Map<string, Promise<Result>>();

  constructor(options: { readonly inputs: ChaosInputs; readonly isReal: boolean }) {
    this.#inputs = options.inputs;
    this.#isReal = options.isReal;
  }

  async run(options: RunOptions): Promise<Outcome> {
    const expected = await this.undisturbed(options);
    const outcome = await Stage.run(this.#staged(options), async (outputDir) =>
      problemsOfResult(await resultOf(outputDir, options.totalSteps ?? totalSteps), expected),
    );
    if (options.schedule.numReplicas === undefined) return outcome;
    // Only reducers are killed: nobody else has a reason to end.
    const ended = outcome.ends.map((end) => `ended by itself: ${end}`);
    const problems = [...outcome.problems, ...ended];
    const isRolledBack = outcome.lives.some(({ events }) =>
      events.some(({ type }) => type === "shards.rolledBack"),
    );
    if (options.schedule.numReplicas === 2 && isRolledBack) {
      problems.push("steps of mirrored shards were lost");
    }
    return { ...outcome, problems };
  }

  /** What the run ends with when nothing happens. */
  async undisturbed({ schedule, ...options }: RunOptions): Promise<Result> {
    const { isLarge, numShards } = schedule;
    const key = JSON.stringify([isLarge, numShards, options.totalSteps]);
    const known = this.#undisturbed.get(key);
    if (known !== undefined) return known;
    const { totalSteps, settings = {} } = options;
    const result = this.#runUndisturbed({
      ...{ schedule: quiet(schedule), slot: options.slot, settings },
      ...(totalSteps === undefined ? {} : { totalSteps }),
    });
    this.#undisturbed.set(key, result);
    return result;
  }

  async #runUndisturbed(options: RunOptions): Promise<Result> {
    let result: Result | undefined;
    const { problems } = await Stage.run(this.#staged(options), async (outputDir) => {
      result = await resultOf(outputDir, options.totalSteps ?? totalSteps);
      return [];
    });
    if (result === undefined) throw new Error(`the undisturbed run failed: ${problems.join("; ")}`);
    return result;
  }

  #staged(options: RunOptions): StageOptions {
    return { ...options, inputs: this.#inputs, isReal: this.#isReal };
  }
}

/** A run of a harness. */
export type RunOptions = Omit<StageOptions, "inputs" | "isReal">;

const quiet = (schedule: Schedule): Schedule => ({ ...schedule, numWorkers: 2, faults: [] });
