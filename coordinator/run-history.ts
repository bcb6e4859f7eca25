import type { LogEntry } from "#lib/checkpoint/trainer-state";
import type { StepCompleted } from "#lib/core/events";
import type {
  BestEvaluation,
  CheckpointState,
  CoordinatorOptions,
  EvaluationResult,
} from "./options.js";
import { type LogMoment, RunLog } from "./run-log.js";

/** What a run remembers of itself: the log that is saved with it, and its best evaluation. */
export class RunHistory {
  readonly #options: CoordinatorOptions;
  readonly #log: RunLog;
  #best: BestEvaluation | undefined;
  #numInputTokens: number;
  readonly #tokensBefore: number;
  /** When the first step of this process began. */
  #firstStepAt: number | undefined;

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    const { resume, loggingSteps = 1, logsFirstStep = false, countsTokens = false } = options;
    this.#best = resume?.state.best;
    this.#tokensBefore = resume?.state.numInputTokens ?? 0;
    this.#numInputTokens = this.#tokensBefore;
    const entries = resume?.state.logHistory ?? [];
    this.#log = new RunLog({ loggingSteps, logsFirstStep, countsTokens, entries });
  }

  stepStarted(): void {
    this.#firstStepAt ??= performance.now();
  }

  stepCompleted(event: StepCompleted, numInputTokens: number): void {
    this.#numInputTokens += numInputTokens;
    this.#publish(this.#log.stepCompleted(event, this.#moment()));
  }

  /** @returns whether it is better than all before; one before the first step is not compared */
  evaluated(result: EvaluationResult): boolean {
    const { evaluation, plan } = this.#options;
    if (evaluation === undefined) return false;
    const { batches, best: rule } = evaluation;
    const numRows = batches.reduce((sum, batch) => sum + batch.numRows, 0);
    const size = { numSamples: evaluation.numSamples ?? numRows, numBatches: batches.length };
    const epoch = plan.epochAt(result.step);
    this.#publish(this.#log.evaluated(result, epoch, size, this.#moment()));
    if (rule === undefined || result.step === 0) return false;
    const value = rule.metric === "loss" ? result.loss : result.scores?.[rule.metric];
    if (value === undefined || Number.isNaN(value)) return false;
    const before = this.#best?.metric;
    const isBest = before === undefined || (rule.greaterIsBetter ? value > before : value < before);
    if (isBest) this.#best = { metric: value, step: result.step };
    return isBest;
  }

  /** The closing entry. */
  finished(step: number): void {
    const epoch = this.#options.plan.epochAt(step);
    const totalFlos = (this.#options.flosPerToken ?? 0) * this.#numInputTokens;
    this.#publish(this.#log.finished({ step, epoch, totalFlos }, this.#moment()));
  }

  state(): Pick<CheckpointState, "numInputTokens" | "logHistory" | "best"> {
    return {
      numInputTokens: this.#numInputTokens,
      logHistory: this.#log.entries(),
      ...(this.#best === undefined ? {} : { best: this.#best }),
    };
  }

  #moment(): LogMoment {
    const now = performance.now();
    return {
      seconds: (now - (this.#firstStepAt ?? now)) / 1000,
      numInputTokens: this.#numInputTokens,
      sessionTokens: this.#numInputTokens - this.#tokensBefore,
    };
  }

  #publish(entry: LogEntry | undefined): void {
    if (entry === undefined) return;
    const { bus, plan } = this.#options;
    const { seconds: elapsedSeconds, numInputTokens } = this.#moment();
    const { totalSteps } = plan;
    bus.publish({ type: "history.logged", entry, totalSteps, elapsedSeconds, numInputTokens });
  }
}
