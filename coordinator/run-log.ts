import type { LogEntry } from "#lib/checkpoint/trainer-state";
import type { StepCompleted } from "#lib/core/events";
import type { EvaluationResult } from "./options.js";

/** The run's history in the entries that transformers' Trainer writes. */
export class RunLog {
  readonly #entries: LogEntry[];
  readonly #loggingSteps: number;
  #losses: number[] = [];

  constructor(loggingSteps: number, entries: readonly LogEntry[] = []) {
    this.#loggingSteps = loggingSteps;
    this.#entries = [...entries];
  }

  entries(): readonly LogEntry[] {
    return [...this.#entries];
  }

  /** An entry every so many steps: the mean loss since the last one; the step's rate and norm. */
  stepCompleted(event: StepCompleted): void {
    this.#losses.push(event.loss);
    if (event.step % this.#loggingSteps !== 0 && event.step !== event.totalSteps) return;
    const loss = this.#losses.reduce((sum, value) => sum + value, 0) / this.#losses.length;
    this.#losses = [];
    this.#entries.push({
      epoch: event.epoch,
      grad_norm: finiteOrNull(event.gradientNorm),
      learning_rate: event.learningRate,
      loss: finiteOrNull(loss),
      step: event.step,
    });
  }

  evaluated(result: EvaluationResult, epoch: number): void {
    this.#entries.push({
      epoch,
      eval_loss: finiteOrNull(result.loss),
      eval_runtime: result.seconds,
      step: result.step,
    });
  }
}

const finiteOrNull = (value: number): number | null => (Number.isFinite(value) ? value : null);
