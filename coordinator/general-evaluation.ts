import type { GeneralLoss } from "#lib/core/forgetting";
import type { StepUpdate } from "#lib/optim/index";
import type { Court } from "./court.js";
import { EvaluationWork } from "./inference-work.js";
import type { LeaseTable } from "./leases.js";
import { addLossSums } from "./loss-sums.js";
import type { CoordinatorOptions } from "./options.js";
import type { RunHistory } from "./run-history.js";
import type { RunPhases } from "./run-phases.js";
import type { Work } from "./task-queue.js";

/** What evaluations are carried out with. */
export interface EvaluationParts {
  readonly options: CoordinatorOptions;
  readonly court: Court;
  readonly history: RunHistory;
  readonly phases: RunPhases;
  readonly updates: StepUpdate;
  readonly newLeases: (numItems: number) => LeaseTable;
  /** Has workers do a work. Rejects where the run fails, or is stopped, meanwhile. */
  readonly carryOut: <T>(work: Work, completed: Promise<T>) => Promise<T>;
  /** Called when a result is in the history, before the next is asked for. */
  readonly kept: () => Promise<void>;
}

/** The loss of general rows: before the first step, beside each evaluation and at the end. */
export class GeneralEvaluation {
  readonly #parts: EvaluationParts;

  constructor(parts: EvaluationParts) {
    this.#parts = parts;
  }

  /** Evaluates the weights that a step left, unless that is in the history; nothing where there are no general rows. */
  async measure(step: number): Promise<void> {
    const { options, court, history, phases, updates } = this.#parts;
    const { general, bus, job } = options;
    if (general === undefined || history.generalLoss(step) !== undefined) return;
    phases.begin("evaluating", "general rows");
    const startedAt = performance.now();
    const work = new EvaluationWork({
      step,
      jury: court.juryOf("evaluation", step),
      batches: general.batches,
      version: updates.numUpdates,
      job,
      leases: this.#parts.newLeases(general.batches.length),
    });
    const evaluated = await this.#parts.carryOut(work, work.completed);
    const { lossSum, weight } = addLossSums(evaluated.filter((one) => one !== undefined));
    const before = step === 0 ? undefined : history.generalLoss(0);
    const figure: GeneralLoss = {
      ...{ step, loss: lossSum / weight },
      ...(before === undefined ? {} : { before }),
    };
    const seconds = (performance.now() - startedAt) / 1000;
    bus.publish({ type: "general.evaluated", ...figure, weight, seconds });
    history.generalEvaluated(figure, seconds);
    await this.#parts.kept();
  }
}
