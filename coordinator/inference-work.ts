import { type Batch, checkBatch } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { Metrics } from "#lib/core/events";
import type { EvaluatedBatch, LossSum, ObjectiveJob } from "#lib/core/job";
import { objectiveOf } from "#lib/objectives/index";
import type { Task, TaskResult } from "#lib/wire/control-messages";
import type { Lease, LeaseTable } from "./leases.js";
import { addLossSums } from "./rounds.js";
import type { Work } from "./task-queue.js";
import { lossesOf } from "./training-step.js";

interface EvaluationSums extends LossSum {
  /** What the objective makes of the rows' outputs. */
  readonly scores: Metrics;
}

/** Validation batches, one a lease, over whatever workers there are. */
export class EvaluationWork implements Work {
  readonly leases: LeaseTable;
  /** Sums added in batch order: the same bits for any number of workers. */
  readonly completed: Promise<EvaluationSums>;
  readonly #batches: readonly Batch[];
  readonly #version: number;
  readonly #objective: ObjectiveJob;
  readonly #results: (EvaluatedBatch | undefined)[];
  #resolve: (sums: EvaluationSums) => void = () => {};

  constructor(options: {
    readonly batches: readonly Batch[];
    readonly version: number;
    readonly objective: ObjectiveJob;
    readonly leases: LeaseTable;
  }) {
    this.leases = options.leases;
    this.#objective = options.objective;
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
    const weight = objectiveOf(this.#objective.kind).weightOf(batch.fields, this.#objective);
    if (evaluated.weight !== weight) {
      throw invalidResult(
        `holds a loss of weight ${evaluated.weight}, and the rows weigh ${weight}`,
      );
    }
    this.#scores([batch], [evaluated]);
    this.#results[lease.item] = evaluated;
    const results = this.#results.filter((one) => one !== undefined);
    if (results.length < this.#results.length) return;
    this.#resolve({ ...addLossSums(results), scores: this.#scores(this.#batches, results) });
  }

  /** @throws E_MESSAGE_INVALID for outputs that no model of the job has */
  #scores(batches: readonly Batch[], results: readonly EvaluatedBatch[]): Metrics {
    const objective = objectiveOf(this.#objective.kind);
    const scorer = objective.scorer?.(this.#objective);
    const declared = objective.outputs?.(this.#objective);
    if (scorer === undefined || declared === undefined) return {};
    for (const [index, batch] of batches.entries()) {
      const { outputs } = results[index] ?? {};
      const fields = outputs === undefined ? {} : { [declared.name]: outputs };
      checkBatch({ numRows: batch.numRows, fields }, [declared], 1);
      try {
        scorer.add(batch, outputs);
      } catch (cause) {
        if (!(cause instanceof RangeError)) throw cause;
        throw invalidResult(`holds ${cause.message}`);
      }
    }
    return scorer.values();
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
