import type { LogEntry } from "#lib/checkpoint/trainer-state";
import type { StepCompleted } from "#lib/core/events";
import type { GeneralLoss } from "#lib/core/forgetting";
import { EvaluationWatch } from "#lib/objectives/evaluation-watch";
import { gapFigures, type LossGap } from "#lib/objectives/loss-gap";
import { loggedMetrics, metricName } from "#lib/objectives/metrics";
import { jobMetrics } from "#lib/objectives/task-metrics";
import type {
  CheckpointState,
  CoordinatorOptions,
  EvaluationResult,
  GeneratedSample,
} from "./options.js";
import { emptyAccount, type RunAccount } from "./run-account.js";
import { generalKey, type LoggedSession, type LogMoment, RunLog } from "./run-log.js";

/** What a run's history holds of the process that writes it. */
export interface HistorySession extends LoggedSession {
  /** Since its first step began. */
  readonly seconds: number;
  /** Input tokens before it. */
  readonly tokensBefore: number;
  /** The account before it. */
  readonly secondsBefore: number;
}

/** What a run remembers of itself: the log that is saved with it, and what its evaluations came to. */
export class RunHistory {
  readonly #options: CoordinatorOptions;
  readonly #log: RunLog;
  readonly #watch: EvaluationWatch;
  #numInputTokens: number;
  readonly #tokensBefore: number;
  readonly #before: RunAccount;
  readonly #openedAt: number;
  readonly #samples: GeneratedSample[];
  #numTokens: number;
  /** When the first step of this process began. */
  #firstStepAt: number | undefined;

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    const { resume, loggingSteps = 1, logsFirstStep = false, countsTokens = false } = options;
    this.#numInputTokens = resume?.state.numInputTokens ?? 0;
    const session = options.recovery?.state.session;
    this.#tokensBefore = session?.tokensBefore ?? this.#numInputTokens;
    const entries = resume?.state.logHistory ?? [];
    this.#watch = new EvaluationWatch(options.evaluation ?? {}, resume?.state);
    // It may be asked for only now, of a run that did not look for it before.
    if (resume?.state.best === undefined) this.#compareAll(entries);
    const before = resume?.state.account ?? emptyAccount;
    // Of one that died the time counts until its last record, as if this process had been there.
    const now = performance.now();
    const secondsBefore = session?.secondsBefore ?? before.seconds;
    this.#before = { ...before, seconds: secondsBefore };
    this.#openedAt = now - 1000 * (before.seconds - secondsBefore);
    if (session !== undefined && session.numSteps > 0) {
      this.#firstStepAt = now - 1000 * session.seconds;
    }
    this.#samples = [...before.samples];
    // A checkpoint without an account still has the tokens that are counted.
    this.#numTokens = resume?.state.account === undefined ? this.#tokensBefore : before.numTokens;
    this.#log = new RunLog({
      ...{ loggingSteps, logsFirstStep, countsTokens, entries, before },
      session,
    });
  }

  hasSample(step: number): boolean {
    return this.#samples.some((sample) => sample.step === step);
  }

  sampled(sample: GeneratedSample): void {
    this.#samples.push(sample);
  }

  stepStarted(): void {
    this.#firstStepAt ??= performance.now();
  }

  stepCompleted(event: StepCompleted, numInputTokens: number): void {
    this.#numInputTokens += numInputTokens;
    this.#numTokens += event.numTokens;
    this.#watch.stepCompleted(event.loss, event.tasks);
    this.#publish(this.#log.stepCompleted(event, this.#moment()));
  }

  /** @param isDue whether it came when it was due: others end no run */
  evaluated(
    result: EvaluationResult,
    isDue: boolean,
  ): { readonly isBest: boolean; readonly gap?: LossGap } {
    const { evaluation, plan } = this.#options;
    if (evaluation === undefined) return { isBest: false };
    const { batches } = evaluation;
    const numRows = batches.reduce((sum, batch) => sum + batch.numRows, 0);
    const size = { numRows: evaluation.numRows ?? numRows, numBatches: batches.length };
    const epoch = plan.epochAt(result.step);
    const watched = this.#watch.evaluated(result, isDue);
    const scores = {
      ...loggedMetrics(jobMetrics(this.#options.job), result.metrics),
      ...gapFigures(result.loss, watched.gap),
    };
    this.#publish(this.#log.evaluated(result, scores, epoch, size, this.#moment()));
    return watched;
  }

  /** Of the best evaluation so far. */
  get bestStep(): number | undefined {
    return this.#watch.state.best?.step;
  }

  /** Why the run ends before its last step; undefined where it goes on. */
  get stop(): string | undefined {
    return this.#watch.stop;
  }

  /** To be called after the last step that is made. */
  tellEarlyStop(step: number): void {
    const { bus, plan } = this.#options;
    if (this.stop === undefined || step >= plan.totalSteps) return;
    const text = `stops early after step ${step} of ${plan.totalSteps}: ${this.stop}`;
    bus.publish({ type: "note", text });
  }

  #compareAll(entries: readonly LogEntry[]): void {
    const rule = this.#options.evaluation?.best;
    if (rule === undefined) return;
    for (const entry of entries) {
      const value = entry[metricName({ key: rule.metric })];
      if (typeof value === "number") this.#watch.compare(entry.step, value);
    }
  }

  hasEvaluation(step: number): boolean {
    return this.#log.entries().some((entry) => entry.step === step && "eval_loss" in entry);
  }

  /** The loss of general rows after so many steps. */
  generalLoss(step: number): number | undefined {
    const found = this.#log.entries().find((entry) => entry.step === step && generalKey in entry);
    if (found === undefined) return undefined;
    return found[generalKey] ?? Number.NaN;
  }

  generalEvaluated(figure: GeneralLoss, seconds: number): void {
    const { general, plan } = this.#options;
    const size = { numRows: general?.numRows ?? 0, numBatches: general?.batches.length ?? 0 };
    const epoch = plan.epochAt(figure.step);
    this.#publish(this.#log.generalEvaluated(figure, seconds, epoch, size, this.#moment()));
  }

  /** The closing entry. */
  finished(step: number): void {
    const { plan, flosPerToken = 0 } = this.#options;
    const epoch = plan.epochAt(step);
    const totalFlos = flosPerToken * this.#numInputTokens;
    const before = (): { numRows: number; seconds: number } => {
      let numRows = 0;
      for (let made = 0; made < step; made++) numRows += plan.rowsIn(made);
      return { numRows, seconds: this.#before.seconds };
    };
    this.#publish(this.#log.finished({ step, epoch, totalFlos }, this.#moment(), before));
  }

  state(): Omit<CheckpointState, "step" | "numUpdates" | "epoch"> {
    return {
      numInputTokens: this.#numInputTokens,
      logHistory: this.#log.entries(),
      ...this.#watch.state,
      account: {
        seconds: this.#before.seconds + (performance.now() - this.#openedAt) / 1000,
        numTokens: this.#numTokens,
        ...this.#log.account(),
        samples: [...this.#samples],
      },
    };
  }

  get session(): HistorySession {
    return {
      ...this.#log.session,
      seconds: this.#moment().seconds,
      tokensBefore: this.#tokensBefore,
      secondsBefore: this.#before.seconds,
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
    const { seconds, numInputTokens } = this.#moment();
    const elapsedSeconds = this.#before.seconds + seconds;
    const { totalSteps } = plan;
    bus.publish({ type: "history.logged", entry, totalSteps, elapsedSeconds, numInputTokens });
  }
}
