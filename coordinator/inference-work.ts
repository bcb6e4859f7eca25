import { type Batch, checkBatch } from "#lib/core/batch";
import type { Metrics } from "#lib/core/events";
import { type EvaluatedBatch, jobOfTask, type TaskedJob } from "#lib/core/job";
import { objectiveOf } from "#lib/objectives/index";
import type { EvaluatedTask } from "#lib/objectives/task-metrics";
import type { Task, TaskResult } from "#lib/wire/control-messages";
import { ComparedWork, type Jury } from "./compared-work.js";
import type { Lease, LeaseTable } from "./leases.js";
import { addLossSums } from "./loss-sums.js";
import type { Work } from "./task-queue.js";
import { invalidResult, lossesOf } from "./training-step.js";

/** Validation batches, one a lease, over whatever workers there are. */
export class EvaluationWork implements Work {
  readonly kind = "evaluation";
  readonly leases: LeaseTable;
  /**
   * By task: sums added in batch order, the same bits for any number of workers. Undefined of one without a batch.
   * @throws E_GROUP_DIVERGED
   */
  readonly completed: Promise<readonly (EvaluatedTask | undefined)[]>;
  readonly #compared: ComparedWork;
  readonly #jury: Jury;
  /** Of each result, by lease. */
  readonly #evaluated = new Map<number, EvaluatedBatch>();
  readonly #batches: readonly Batch[];
  readonly #version: number;
  readonly #job: TaskedJob;
  #resolve: (sums: readonly (EvaluatedTask | undefined)[]) => void = () => {};
  #reject: (error: unknown) => void = () => {};

  constructor(options: {
    /** Steps completed, for errors. */
    readonly step: number;
    readonly jury: Jury;
    readonly batches: readonly Batch[];
    readonly version: number;
    readonly job: TaskedJob;
    readonly leases: LeaseTable;
  }) {
    this.leases = options.leases;
    this.#jury = options.jury;
    this.#job = options.job;
    this.#batches = options.batches;
    this.#version = options.version;
    this.#compared = new ComparedWork({
      numItems: options.batches.length,
      numShards: 0,
      jury: options.jury,
      what: (group) => ({ step: options.step, group }),
    });
    this.#compared.setWanted(options.leases);
    this.completed = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever waits sees it.
    this.completed.catch(() => {});
  }

  mayTake(item: number, workerId: string): boolean {
    return this.#compared.mayTake(item, workerId, this.leases);
  }

  taskFor(lease: Lease): Task {
    const batch = this.#batches[lease.item];
    if (batch === undefined) throw new RangeError(`There is no batch ${lease.item}`);
    return { kind: "evaluate", lease: lease.id, version: this.#version, batches: [batch] };
  }

  accept(lease: Lease, result: TaskResult): void {
    const [batch, evaluated] = [this.#batches[lease.item], lossesOf(result)[0]];
    if (batch === undefined || evaluated === undefined) throw invalidResult("holds no loss sum");
    const { objective } = jobOfTask(this.#job, batch.task);
    const weight = objectiveOf(objective.kind).weightOf(batch.fields, objective);
    if (evaluated.weight !== weight) {
      throw invalidResult(
        `holds a loss of weight ${evaluated.weight}, and the rows weigh ${weight}`,
      );
    }
    this.#scores([batch], [evaluated]);
    this.#evaluated.set(lease.id, evaluated);
    const key = JSON.stringify([
      String(evaluated.lossSum),
      ...(evaluated.outputs === undefined ? [] : [Array.from(evaluated.outputs, String)]),
    ]);
    this.#compared.of(lease.item).reported(lease.id, lease.workerId, evaluated, key);
    this.leases.finish(lease.id);
    this.#jury.onResult(lease.workerId);
    this.#judge(lease.item);
    const results = this.#compared
      .verdicts()
      .map((verdict) =>
        verdict.kind === "agreed" ? this.#evaluated.get(verdict.lease) : undefined,
      )
      .filter((one) => one !== undefined);
    if (results.length < this.#batches.length) return;
    this.#resolve((this.#job.tasks ?? [undefined]).map((_, task) => this.#sumsOf(task, results)));
  }

  #sumsOf(task: number, results: readonly EvaluatedBatch[]): EvaluatedTask | undefined {
    const isOfTask = (item: number): boolean => (this.#batches[item]?.task ?? 0) === task;
    const own = results.filter((_, item) => isOfTask(item));
    if (own.length === 0) return undefined;
    const batches = this.#batches.filter((_, item) => isOfTask(item));
    return { ...addLossSums(own), scores: this.#scores(batches, own) };
  }

  /** Whoever is missing now is not waited for. */
  membersChanged(): void {
    for (const item of this.#batches.keys()) this.#judge(item);
  }

  #judge(item: number): void {
    try {
      this.#compared.judge(item, this.leases);
    } catch (error) {
      this.#reject(error);
    }
  }

  /** @param batches of one task. @throws E_MESSAGE_INVALID for outputs that no model of the job has */
  #scores(batches: readonly Batch[], results: readonly EvaluatedBatch[]): Metrics {
    const { objective: learnt } = jobOfTask(this.#job, batches[0]?.task);
    const objective = objectiveOf(learnt.kind);
    const scorer = objective.scorer?.(learnt);
    const declared = objective.outputs?.(learnt);
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
  readonly kind = "generation";
  readonly leases: LeaseTable;
  readonly completed: Promise<readonly number[]>;
  readonly #task: {
    readonly version: number;
    readonly prompt: readonly number[];
    readonly maxNewTokens: number;
    readonly endTokenIds: readonly number[];
  };
  readonly #onResult: (workerId: string) => void;
  #resolve: (tokens: readonly number[]) => void = () => {};

  constructor(options: {
    readonly onResult: (workerId: string) => void;
    readonly version: number;
    readonly prompt: readonly number[];
    readonly maxNewTokens: number;
    readonly endTokenIds: readonly number[];
    readonly leases: LeaseTable;
  }) {
    const { leases, onResult, ...task } = options;
    this.leases = leases;
    this.#onResult = onResult;
    this.#task = task;
    this.completed = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  taskFor(lease: Lease): Task {
    const { version, prompt, maxNewTokens, endTokenIds } = this.#task;
    return { kind: "generate", lease: lease.id, version, prompt, maxNewTokens, endTokenIds };
  }

  accept(lease: Lease, result: TaskResult): void {
    if (result.kind !== "tokens") {
      throw invalidResult("holds loss sums where tokens were expected");
    }
    this.leases.finish(lease.id);
    this.leases.want(lease.item, 0);
    this.#onResult(lease.workerId);
    this.#resolve(result.ids);
  }
}
