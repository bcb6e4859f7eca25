import type { TaskFigures } from "#lib/core/events";
import {
  afterEvaluation,
  type BestEvaluation,
  type BestRule,
  describeStop,
  type EarlyStopping,
  type EarlyStoppingState,
  hasStopped,
  isBetter,
  noEvaluations,
} from "./early-stopping.js";
import {
  type LossGap,
  type LossGapState,
  noLossGap,
  withEvaluation,
  withStep,
} from "./loss-gap.js";
import { metricName } from "./metrics.js";

/** What is looked for in a run's evaluations. */
export interface WatchRules {
  /** Absent: they are not compared. */
  readonly best?: BestRule;
  /** Beside `best`; absent: the run makes all its steps. */
  readonly earlyStopping?: EarlyStopping;
  /** What a person who is warned of overfitting can do: the end of a sentence. */
  readonly advice?: string;
}

/** What it came to, in checkpoints. */
export interface WatchState {
  readonly best?: BestEvaluation;
  readonly earlyStopping?: EarlyStoppingState;
  readonly lossGap?: LossGapState;
}

interface WatchedEvaluation {
  /** Steps completed. */
  readonly step: number;
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/**
 * What a run concludes of its evaluations, one after the other, in a cluster and in one process: which is the best,
 * whether to end the run, and how far training and validation are apart.
 */
export class EvaluationWatch {
  readonly #rules: WatchRules;
  #best: BestEvaluation | undefined;
  #earlyStopping: EarlyStoppingState | undefined;
  #lossGap: LossGapState;

  /** @param before of the checkpoint that the run goes on from */
  constructor(rules: WatchRules, before: WatchState = {}) {
    this.#rules = rules;
    this.#best = before.best;
    this.#earlyStopping =
      rules.earlyStopping === undefined
        ? before.earlyStopping
        : (before.earlyStopping ?? noEvaluations);
    this.#lossGap = before.lossGap ?? noLossGap;
  }

  /** @param tasks of a run of several, those without a row in the step too */
  stepCompleted(loss: number, tasks?: readonly TaskFigures[]): void {
    this.#lossGap = withStep(this.#lossGap, loss, tasks);
  }

  /**
   * @param isDue whether `eval_strategy` asked for it: others end no run. Nor is one before the first step compared
   * @returns whether it is the best so far, and the gap between the losses where steps came before it
   */
  evaluated(
    evaluation: WatchedEvaluation,
    isDue: boolean,
  ): { readonly isBest: boolean; readonly gap?: LossGap } {
    const { step, metrics } = evaluation;
    const { best: rule, earlyStopping, advice = "" } = this.#rules;
    const { state, gap } = withEvaluation(this.#lossGap, evaluation, advice);
    this.#lossGap = state;
    const ofGap = gap === undefined ? {} : { gap };
    const value =
      rule === undefined || rule.metric === "loss" ? evaluation.loss : metrics[rule.metric];
    if (rule === undefined || step === 0 || value === undefined) return { isBest: false, ...ofGap };
    if (earlyStopping !== undefined && isDue) {
      const { threshold } = earlyStopping;
      const { greaterIsBetter } = rule;
      this.#earlyStopping = afterEvaluation(
        this.#earlyStopping ?? noEvaluations,
        value,
        this.#best?.metric,
        { threshold, greaterIsBetter },
      );
    }
    return { isBest: this.compare(step, value), ...ofGap };
  }

  /** Keeps the best of all that it is called with; what comes before the first step is not compared. */
  compare(step: number, value: number): boolean {
    const { best: rule } = this.#rules;
    if (rule === undefined || step === 0) return false;
    const isBest = isBetter(value, this.#best?.metric, rule);
    if (isBest) this.#best = { metric: value, step };
    return isBest;
  }

  /** Why the run ends here, before its last step; undefined where it goes on. */
  get stop(): string | undefined {
    return stopOf(this.#rules, this.state);
  }

  get state(): WatchState {
    return {
      ...(this.#best === undefined ? {} : { best: this.#best }),
      ...(this.#earlyStopping === undefined ? {} : { earlyStopping: this.#earlyStopping }),
      lossGap: this.#lossGap,
    };
  }
}

/** Why a run in this state ends, in words; undefined where early stopping does not end it. */
export function stopOf(
  { best: rule, earlyStopping }: WatchRules,
  { best, earlyStopping: state }: WatchState,
): string | undefined {
  if (earlyStopping === undefined || state === undefined || !hasStopped(earlyStopping, state)) {
    return undefined;
  }
  return describeStop(earlyStopping, state, metricName({ key: rule?.metric ?? "loss" }), best);
}
