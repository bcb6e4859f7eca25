import { LockstepError } from "#lib/core/errors/index";
import type { LossSum, TokenBatch } from "#lib/core/job";
import type { Task, TaskResult } from "#lib/wire/control-messages";
import type { Lease, LeaseTable } from "./leases.js";
import { addLossSums } from "./rounds.js";
import type { Work } from "./task-queue.js";
import { lossesOf } from "./training-step.js";

/** Validation batches, one a lease, over whatever workers there are. */
export class EvaluationWork implements Work {
  readonly leases: LeaseTable;
  /** Sums added in batch order: the same bits for any number of workers. */
  readonly completed: Promise<LossSum>;
  readonly #batches: readonly TokenBatch[];
  readonly #version: number;
  readonly #sums: (LossSum | undefined)[];
  #resolve: (sum: LossSum) => void = () => {};

  constructor(options: {
    readonly batches: readonly TokenBatch[];
    readonly version: number;
    readonly leases: LeaseTable;
  }) {
    this.leases = options.leases;
    this.#batches = options.batches;
    this.#version = options.version;
    this.#sums = options.batches.map(() => undefined);
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
    this.#sums[lease.item] = addLossSums(lossesOf(result));
    const sums = this.#sums.filter((sum) => sum !== undefined);
    if (sums.length === this.#sums.length) this.#resolve(addLossSums(sums));
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
      throw new LockstepError("E_MESSAGE_INVALID", {
        message: "CompleteTaskRequest",
        field: "result",
        reason: "holds loss sums where tokens were expected",
      });
    }
    this.#resolve(result.ids);
  }
}
