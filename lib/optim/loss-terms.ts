import type { TaskFigures } from "#lib/core/events";
import type { LossSum } from "#lib/core/job";

/** A part of a run's loss that is a mean by itself: sum_k w_k * L_k, each L_k over its own rows. */
interface LossTerm {
  /** Of its task. */
  readonly name: string;
  /** w_k, where it is not learnt. */
  readonly weight: number;
  /**
   * Learnt: c of c * exp(-s) * L + s / 2 (Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh
   * losses", CVPR 2018), 1/2 of a squared error and 1 of a log-likelihood. `weight` is not used then.
   */
  readonly uncertainty?: number;
}

export interface LossTermsSettings {
  readonly terms: readonly LossTerm[];
  /** The term of each task of the job. */
  readonly termOfTask: readonly number[];
}

/** What is learnt of a weight: s, with the moments of Adam and its number of updates. */
interface LearntWeight {
  readonly s: number;
  readonly m: number;
  readonly v: number;
  readonly updates: number;
}

/** By name. */
export type LossTermsState = Readonly<Record<string, LearntWeight>>;

/** torch.optim.Adam's defaults. */
const beta1 = 0.9;
const beta2 = 0.999;
const epsilon = 1e-8;

const start: LearntWeight = Object.freeze({ s: 0, m: 0, v: 0, updates: 0 });
/** A task may be called as what every object has: constructor. */
const savedOf = (state: LossTermsState, name: string): LearntWeight | undefined =>
  Object.hasOwn(state, name) ? state[name] : undefined;
const single: LossTermsSettings = { terms: [{ name: "", weight: 1 }], termOfTask: [0] };

/**
 * The weights of a run's tasks in a step, in one process and on a coordinator: what gradients are scaled by, what the
 * loss is, and what becomes of weights that are learnt. All of it is float64. A value does not change.
 */
export class LossTerms {
  readonly #terms: readonly LossTerm[];
  readonly #termOfTask: readonly number[];
  readonly #learnt: ReadonlyMap<string, LearntWeight>;

  /** @param settings absent: a run of one task, of weight 1 */
  constructor(settings: LossTermsSettings = single, state: LossTermsState = {}) {
    this.#terms = settings.terms;
    this.#termOfTask = settings.termOfTask;
    this.#learnt = new Map(
      settings.terms
        .filter(({ uncertainty }) => uncertainty !== undefined)
        .map(({ name }) => [name, savedOf(state, name) ?? start]),
    );
  }

  /** w_k. */
  get weights(): readonly number[] {
    return this.#terms.map((term) => this.#weightOf(term));
  }

  /** Undefined of a run of one task. */
  figures(sums: readonly LossSum[]): readonly TaskFigures[] | undefined {
    if (this.#terms.length < 2) return undefined;
    return this.#terms.map((term, index) => {
      const loss = meanOf(sums[index]);
      const { name } = term;
      return { name, weight: this.#weightOf(term), ...(loss === undefined ? {} : { loss }) };
    });
  }

  /** For a checkpoint; undefined where nothing is learnt. */
  get state(): LossTermsState | undefined {
    return this.#learnt.size === 0 ? undefined : Object.fromEntries(this.#learnt);
  }

  /**
   * What the gradient of each task's loss sum is to be multiplied by.
   *
   * @param lossWeights what each term's loss sum is divided by; 0 where the step has no row of it
   */
  gradScales(lossWeights: readonly number[], lossScale: number): readonly number[] {
    const { weights } = this;
    return this.#termOfTask.map((term) => {
      const divisor = lossWeights[term] ?? 0;
      return divisor === 0 ? 0 : (lossScale * (weights[term] ?? 1)) / divisor;
    });
  }

  /**
   * Each term's sums of a step, or of an evaluation.
   *
   * @param groups sums by batch, each with the place of its task; added in this order
   */
  sums(groups: readonly (readonly TaskSum[])[]): readonly LossSum[] {
    const total = this.#terms.map(() => ({ lossSum: 0, weight: 0 }));
    for (const group of groups) {
      const part = this.#terms.map(() => ({ lossSum: 0, weight: 0 }));
      for (const { task = 0, lossSum, weight } of group) {
        const sum = part[this.#termOfTask[task] ?? 0] as { lossSum: number; weight: number };
        sum.lossSum += lossSum;
        sum.weight += weight;
      }
      for (const [term, { lossSum, weight }] of part.entries()) {
        const sum = total[term] as { lossSum: number; weight: number };
        sum.lossSum += lossSum;
        sum.weight += weight;
      }
    }
    return total;
  }

  /** The whole loss. A term without a row is none. @param sums of the terms */
  loss(sums: readonly LossSum[]): number {
    let loss: number | undefined;
    for (const [index, term] of this.#terms.entries()) {
      const mean = meanOf(sums[index]);
      if (mean === undefined) continue;
      const { s = 0 } = this.#learnt.get(term.name) ?? {};
      const part = this.#weightOf(term) * mean + s / 2;
      loss = loss === undefined ? part : loss + part;
    }
    return loss ?? Number.NaN;
  }

  /**
   * With weights that learnt from the losses of a step, each by Adam of its own. One without a row in the step stays,
   * and its Adam counts no update.
   */
  learned(sums: readonly LossSum[], learningRate: number): LossTerms {
    const learnt = new Map(this.#learnt);
    for (const [index, { name, uncertainty }] of this.#terms.entries()) {
      const mean = meanOf(sums[index]);
      const before = this.#learnt.get(name);
      if (before === undefined || uncertainty === undefined || mean === undefined) continue;
      if (!Number.isFinite(mean)) continue;
      const gradient = 0.5 - uncertainty * Math.exp(-before.s) * mean;
      const updates = before.updates + 1;
      const m = beta1 * before.m + (1 - beta1) * gradient;
      const v = beta2 * before.v + (1 - beta2) * gradient * gradient;
      const step = learningRate / (1 - beta1 ** updates);
      const s = before.s - (step * m) / (Math.sqrt(v) / Math.sqrt(1 - beta2 ** updates) + epsilon);
      learnt.set(name, { s, m, v, updates });
    }
    return new LossTerms(
      { terms: this.#terms, termOfTask: this.#termOfTask },
      Object.fromEntries(learnt),
    );
  }

  #weightOf({ name, weight, uncertainty }: LossTerm): number {
    const learnt = this.#learnt.get(name);
    if (learnt === undefined || uncertainty === undefined) return weight;
    return uncertainty * Math.exp(-learnt.s);
  }
}

interface TaskSum extends LossSum {
  readonly task?: number | undefined;
}

/** Undefined where no row counts. */
const meanOf = (sum: LossSum | undefined): number | undefined =>
  sum === undefined || sum.weight === 0 ? undefined : sum.lossSum / sum.weight;

/** What a checkpoint has of weights that are learnt; undefined for what is none. */
export function readLossTerms(value: unknown): LossTermsState | undefined {
  const isNumbers = (one: unknown): boolean =>
    typeof one === "object" &&
    one !== null &&
    ["s", "m", "v", "updates"].every((key) => Number.isFinite((one as never)[key]));
  const isState =
    typeof value === "object" && value !== null && Object.values(value).every(isNumbers);
  return isState ? (value as LossTermsState) : undefined;
}
