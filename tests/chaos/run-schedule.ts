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

  /** @param slot of runs at a time in this process */
  async run(
    schedule: Schedule,
    slot: number,
    more: Omit<StageOptions, "schedule" | "slot" | "inputs" | "isReal"> = {},
  ): Promise<Outcome> {
    const options = { schedule, slot, inputs: this.#inputs, isReal: this.#isReal, ...more };
    const expected = await this.#expected(options);
    return Stage.run(options, async (outputDir) =>
      problemsOfResult(await resultOf(outputDir, more.totalSteps ?? totalSteps), expected),
    );
  }

  async #expected({ schedule, ...options }: StageOptions): Promise<Result> {
    const { isLarge, numShards } = schedule;
    const key = JSON.stringify([isLarge, numShards, options.totalSteps]);
    const known = this.#undisturbed.get(key);
    if (known !== undefined) return known;
    const { onEvent: _disturbs, paceMs: _waits, ...same } = options;
    const result = this.#runUndisturbed({ ...same, schedule: quiet(schedule) });
    this.#undisturbed.set(key, result);
    return result;
  }

  async #runUndisturbed(options: StageOptions): Promise<Result> {
    let result: Result | undefined;
    const { problems } = await Stage.run(options, async (outputDir) => {
      result = await resultOf(outputDir, options.totalSteps ?? totalSteps);
      return [];
    });
    if (result === undefined) throw new Error(`the undisturbed run failed: ${problems.join("; ")}`);
    return result;
  }
}

const quiet = (schedule: Schedule): Schedule => ({ ...schedule, numWorkers: 2, faults: [] });
