import type { LogEntry } from "#lib/checkpoint/trainer-state";
import type { Metrics, StepCompleted } from "#lib/core/events";
import { ewcRatio, forgottenOf, type GeneralLoss } from "#lib/core/forgetting";
import type { EvaluationResult } from "./options.js";
import { emptyAccount, type RunAccount } from "./run-account.js";
import { TaskLog } from "./task-log.js";

/** What of the account the log keeps. */
type LoggedAccount = Pick<
  RunAccount,
  "numSteps" | "lossSum" | "unloggedLosses" | "unloggedMetrics" | "unloggedTasks"
>;

/** Steps of this process, for the closing entry. */
export interface LoggedSession {
  readonly numSteps: number;
  readonly numRows: number;
}

interface RunLogOptions {
  readonly loggingSteps: number;
  /** transformers' `logging_first_step`. @default false */
  readonly logsFirstStep?: boolean;
  /** What was logged before a resumption. */
  readonly entries?: readonly LogEntry[];
  /** What was trained before a resumption. */
  readonly before?: LoggedAccount;
  /** transformers' `include_num_input_tokens_seen`: adds the token fields. @default false */
  readonly countsTokens?: boolean;
  /** Of a coordinator that died, and in whose place this one goes on. */
  readonly session?: LoggedSession | undefined;
}

/** Where the run is when an entry is made. */
export interface LogMoment {
  /** Since the first step of this process. */
  readonly seconds: number;
  readonly numInputTokens: number;
  /** Those of this process's steps. */
  readonly sessionTokens: number;
}

/**
 * The run's history in the entries that transformers' Trainer writes, with its names, units and
 * rounding: seconds to 4 digits, rates to 3.
 */
export class RunLog {
  readonly #entries: LogEntry[];
  readonly #loggingSteps: number;
  readonly #logsFirstStep: boolean;
  readonly #countsTokens: boolean;
  /** Of the whole run. Added up step by step, so that an interruption changes no bit of the sum. */
  #lossSum: number;
  #numSteps: number;
  #losses: number[];
  /** What steps told of their rows since the last entry. */
  #metrics: Metrics[];
  readonly #tasks: TaskLog;
  #session: LoggedSession;

  constructor(options: RunLogOptions) {
    this.#session = options.session ?? { numSteps: 0, numRows: 0 };
    this.#loggingSteps = options.loggingSteps;
    this.#logsFirstStep = options.logsFirstStep ?? false;
    this.#entries = [...(options.entries ?? [])];
    this.#countsTokens = options.countsTokens ?? false;
    const {
      numSteps,
      lossSum,
      unloggedLosses,
      unloggedMetrics = [],
      unloggedTasks,
    } = options.before ?? emptyAccount;
    this.#tasks = new TaskLog(unloggedTasks);
    this.#lossSum = lossSum;
    this.#numSteps = numSteps;
    this.#losses = [...unloggedLosses];
    this.#metrics = [...unloggedMetrics];
  }

  /** What a run that goes on from here has to know, beside the entries. */
  account(): LoggedAccount {
    const { unlogged } = this.#tasks;
    return {
      ...(unlogged === undefined ? {} : { unloggedTasks: unlogged }),
      numSteps: this.#numSteps,
      lossSum: this.#lossSum,
      unloggedLosses: [...this.#losses],
      ...(this.#metrics.length === 0 ? {} : { unloggedMetrics: [...this.#metrics] }),
    };
  }

  get session(): LoggedSession {
    return this.#session;
  }

  entries(): readonly LogEntry[] {
    return [...this.#entries];
  }

  /**
   * An entry every so many steps: the mean loss since the last one; the step's rate and norm.
   * @returns the entry, if one was due
   */
  stepCompleted(event: StepCompleted, moment: LogMoment): LogEntry | undefined {
    this.#losses.push(event.loss);
    if (event.metrics !== undefined) this.#metrics.push(event.metrics);
    this.#tasks.step(event.tasks);
    this.#lossSum += event.loss;
    this.#numSteps += 1;
    const { numSteps, numRows } = this.#session;
    this.#session = { numSteps: numSteps + 1, numRows: numRows + event.numRows };
    const isDue =
      event.step % this.#loggingSteps === 0 ||
      event.step === event.totalSteps ||
      (event.step === 1 && this.#logsFirstStep);
    if (!isDue) return undefined;
    const loss = this.#losses.reduce((sum, value) => sum + value, 0) / this.#losses.length;
    const metrics = meansOf(this.#metrics);
    this.#losses = [];
    this.#metrics = [];
    return this.#add({
      epoch: event.epoch,
      grad_norm: finiteOrNull(event.gradientNorm),
      learning_rate: event.learningRate,
      ...ewcEntry(event),
      loss: finiteOrNull(loss),
      ...metrics,
      step: event.step,
      ...this.#tasks.entry(),
      ...this.#tokens(moment, {
        train_runtime: seconds(moment.seconds),
        train_tokens_per_second: rate(moment.sessionTokens, moment.seconds),
      }),
    });
  }

  /** @param scores by their names here */
  evaluated(
    result: EvaluationResult,
    scores: Readonly<Record<string, number>>,
    epoch: number,
    size: { readonly numRows: number; readonly numBatches: number },
    moment: LogMoment,
  ): LogEntry {
    return this.#add({
      epoch,
      eval_loss: finiteOrNull(result.loss),
      ...scores,
      eval_runtime: seconds(result.seconds),
      eval_samples_per_second: rate(size.numRows, result.seconds),
      eval_steps_per_second: rate(size.numBatches, result.seconds),
      step: result.step,
      ...this.#tokens(moment),
    });
  }

  /** An evaluation of general rows, named as transformers names one of several data sets. */
  generalEvaluated(
    figure: GeneralLoss,
    inSeconds: number,
    epoch: number,
    size: { readonly numRows: number; readonly numBatches: number },
    moment: LogMoment,
  ): LogEntry {
    return this.#add({
      epoch,
      ...generalEntry(figure),
      eval_general_runtime: seconds(inSeconds),
      eval_general_samples_per_second: rate(size.numRows, inSeconds),
      eval_general_steps_per_second: rate(size.numBatches, inSeconds),
      step: figure.step,
      ...this.#tokens(moment),
    });
  }

  /**
   * The closing entry: the mean loss of the run's steps, the time and the rates of this process. A process that
   * made no step closes for those before it, which ended before they could; none where there were none.
   *
   * @param before what those made, in which time
   */
  finished(
    at: { readonly step: number; readonly epoch: number; readonly totalFlos: number },
    moment: LogMoment,
    before: () => { readonly numRows: number; readonly seconds: number },
  ): LogEntry | undefined {
    const isLate = this.#session.numSteps === 0;
    const isClosed = this.#entries.some((entry) => entry.step === at.step && "train_loss" in entry);
    if (isClosed || (isLate && this.#numSteps === 0)) return undefined;
    const numSteps = isLate ? this.#numSteps : this.#session.numSteps;
    const { numRows, seconds: inSeconds } = isLate
      ? before()
      : { numRows: this.#session.numRows, seconds: moment.seconds };
    return this.#add({
      epoch: at.epoch,
      step: at.step,
      total_flos: at.totalFlos,
      train_loss: finiteOrNull(this.#lossSum / this.#numSteps),
      train_runtime: seconds(inSeconds),
      train_samples_per_second: rate(numRows, inSeconds),
      train_steps_per_second: rate(numSteps, inSeconds),
      ...this.#tokens(moment),
    });
  }

  #tokens(moment: LogMoment, rates: Record<string, number> = {}): Record<string, number> {
    return this.#countsTokens ? { num_input_tokens_seen: moment.numInputTokens, ...rates } : {};
  }

  #add(entry: LogEntry): LogEntry {
    this.#entries.push(entry);
    return entry;
  }
}

/** EWC's figures of a step in an entry of the history: of that step alone, as its rate and norm. */
export function ewcEntry(
  step: Pick<StepCompleted, "loss" | "ewcPenalty">,
): Record<string, number | null> {
  if (step.ewcPenalty === undefined) return {};
  return { ewc_penalty: finiteOrNull(step.ewcPenalty), ewc_ratio: finiteOrNull(ewcRatio(step)) };
}

/** The loss of general rows in an entry. */
export const generalKey = "eval_general_loss";

/** The figures of general rows in an entry of the history. */
export function generalEntry(figure: GeneralLoss): Record<string, number | null> {
  const forgotten = forgottenOf(figure);
  return {
    ...(forgotten === undefined ? {} : { eval_general_forgotten: finiteOrNull(forgotten) }),
    [generalKey]: finiteOrNull(figure.loss),
  };
}

/** The mean of each figure over the steps that have it. */
function meansOf(steps: readonly Metrics[]): Record<string, number | null> {
  const keys = new Set(steps.flatMap((metrics) => Object.keys(metrics)));
  return Object.fromEntries(
    [...keys].map((key) => {
      const values = steps.flatMap((metrics) => metrics[key] ?? []);
      const sum = values.reduce((total, value) => total + value, 0);
      return [key, finiteOrNull(sum / values.length)];
    }),
  );
}

const finiteOrNull = (value: number): number | null => (Number.isFinite(value) ? value : null);
const seconds = (value: number): number => Number(value.toFixed(4));
/** A clock that did not move gives no rate; transformers leaves the field out, a reader expects it. */
const rate = (count: number, inSeconds: number): number =>
  inSeconds > 0 ? Number((count / inSeconds).toFixed(3)) : 0;
