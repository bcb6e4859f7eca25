import { LockstepError } from "#lib/core/errors/index";
import { type ClassificationScores, ClassCounts } from "#lib/core/classification-scores";
import { type EvaluatedBatch, type LossSum, rowTargets, type TokenBatch } from "#lib/core/job";
import type { Task, TaskResult } from "#lib/wire/control-messages";
import type { Lease, LeaseTable } from "./leases.js";
import { addLossSums } from "./rounds.js";
import type { Work } from "./task-queue.js";
import { lossesOf } from "./training-step.js";

export interface EvaluationSums extends LossSum {
  /** Of a classifier. */
  readonly scores?: ClassificationScores;
}

/** Validation batches, one a lease, over whatever workers there are. */
export class EvaluationWork implements Work {
  readonly leases: LeaseTable;
  /** Sums added in batch order: the same bits for any number of workers. */
  readonly completed: Promise<EvaluationSums>;
  readonly #batches: readonly TokenBatch[];
  readonly #version: number;
  readonly #numClasses: number | undefined;
  readonly #results: (EvaluatedBatch | undefined)[];
  #resolve: (sums: EvaluationSums) => void = () => {};

  constructor(options: {
    readonly batches: readonly TokenBatch[];
    readonly version: number;
    /** Of a classifier. */
    readonly numClasses?: number | undefined;
    readonly leases: LeaseTable;
  }) {
    this.leases = options.leases;
    this.#numClasses = options.numClasses;
    this.#batches = options.batches;
    this.#version = options.version;
    this.#results = options.batches.map(() => undefined);
    this.completed = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  taskFor(lease: Lease): Task {
    const batch = this.#batches[lease.item];
    if (batch === undefined) throw new RangeError(`There is no batch ${lease.item}`);
    return { kind: "evaluate", lease: lease.id, version: this.#version, batches: [batch] };
  }

  accept(lease: Lease, result: TaskResult): void {
    const [batch, evaluated] = [this.#batches[lease.item], lossesOf(result)[0]];
    if (batch === undefined || evaluated === undefined) throw invalidResult("holds no loss sum");
    this.#checkPredictions(batch, evaluated);
    this.#results[lease.item] = evaluated;
    const results = this.#results.filter((one) => one !== undefined);
    if (results.length < this.#results.length) return;
    const scores = this.#scores(results);
    this.#resolve({ ...addLossSums(results), ...(scores === undefined ? {} : { scores }) });
  }

  #checkPredictions({ numRows }: TokenBatch, { predictions }: EvaluatedBatch): void {
    const numClasses = this.#numClasses;
    if (numClasses === undefined) return;
    const areClasses = predictions?.every((label) => label >= 0 && label < numClasses) === true;
    if (areClasses && predictions.length === numRows) return;
    throw invalidResult(`holds no class below ${numClasses} for each of ${numRows} rows`);
  }

  #scores(results: readonly EvaluatedBatch[]): ClassificationScores | undefined {
    if (this.#numClasses === undefined) return undefined;
    const counts = new ClassCounts(this.#numClasses);
    for (const [index, batch] of this.#batches.entries()) {
      counts.add(rowTargets(batch), results[index]?.predictions ?? new Int32Array(0));
    }
    return counts.scores();
  }
}

/** One greedy continuation, on one worker. */
export class GenerationWork implements Work {
  readonly leases: LeaseTable;
  readonly completed: Promise<readonly number[]>;
  readonly #task: {
    readonly version: number;
    readonly prompt: readonly number[];
    readonly maxNewTokens: number;
    readonly endTokenIds: readonly number[];
  };
  #resolve: (tokens: readonly number[]) => void = () => {};

  constructor(options: {
    readonly version: number;
    readonly prompt: readonly number[];
    readonly maxNewTokens: number;
    readonly endTokenIds: readonly number[];
    readonly leases: LeaseTable;
  }) {
    const { leases, ...task } = options;
    this.leases = leases;
    this.#task = task;
    this.completed = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  taskFor(lease: Lease): Task {
    const { version, prompt, maxNewTokens, endTokenIds } = this.#task;
    return { kind: "generate", lease: lease.id, version, prompt, maxNewTokens, endTokenIds };
  }

  accept(_lease: Lease, result: TaskResult): void {
    if (result.kind !== "tokens") {
      throw invalidResult("holds loss sums where tokens were expected");
    }
    this.#resolve(result.ids);
  }
}

const invalidResult = (reason: string): LockstepError =>
  new LockstepError("E_MESSAGE_INVALID", {
    message: "CompleteTaskRequest",
    field: "result",
    reason,
  });
