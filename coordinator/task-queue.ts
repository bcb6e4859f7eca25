import type { CompleteTaskRequest, Task, TaskResult } from "#lib/wire/control-messages";
import type { Lease, LeaseTable } from "./leases.js";

/** A piece of the run that is done by leases: a training step, an evaluation, a generation. */
export interface Work {
  readonly leases: LeaseTable;
  taskFor(lease: Lease): Task;
  /** Takes the first result of the lease's item. @throws E_MESSAGE_INVALID for one of the wrong form */
  accept(lease: Lease, result: TaskResult): void;
  onGranted?(lease: Lease): void;
  onRequeued?(lease: Lease, reason: string): void;
}

interface Waiter {
  readonly workerId: string;
  readonly answer: (task: Task) => void;
}

/**
 * Hands the items of the current work to the workers that ask, and holds those that ask when there
 * is nothing to do. One work is open at a time: a step's sums need all of the step before.
 */
export class TaskQueue {
  /** In the order in which they asked. */
  readonly #waiters = new Set<Waiter>();
  #work: Work | undefined;
  #end: Omit<Task & { kind: "finished" }, "kind"> | undefined;

  open(work: Work): void {
    this.#work = work;
    this.#serve();
  }

  close(): void {
    this.#work = undefined;
  }

  /** From now on every worker that asks is told that the job is over. */
  finish(end: { readonly reason: string; readonly interrupted: boolean }): void {
    this.#work = undefined;
    this.#end = end;
    for (const waiter of [...this.#waiters]) waiter.answer({ kind: "finished", ...end });
  }

  /**
   * @param heldLeases leases of the worker whose results are on their way: it keeps them
   * @returns work, `finished`, or `wait` after `maxWaitMs`; a caller that went away gets no lease
   */
  async next(
    workerId: string,
    maxWaitMs: number,
    signal: AbortSignal,
    heldLeases: readonly number[] = [],
  ): Promise<Task> {
    if (this.#end !== undefined) return { kind: "finished", ...this.#end };
    if (signal.aborted) return { kind: "wait" };
    // A worker asks for one task after the other: what it does not name when it asks never reached it.
    this.releaseWorker(workerId, `${workerId} asked for other work`, heldLeases);
    return this.#grant(workerId) ?? this.#wait(workerId, maxWaitMs, signal);
  }

  /** @returns whether the result came too late to count */
  complete(request: CompleteTaskRequest): boolean {
    const work = this.#work;
    const lease = work?.leases.find(request.lease);
    if (work === undefined || lease === undefined || work.leases.isDone(lease.item)) return true;
    // A result that is refused leaves the item open.
    work.accept(lease, request.result);
    work.leases.complete(lease.id);
    return false;
  }

  /** @param except leases that the worker keeps */
  releaseWorker(workerId: string, reason: string, except: readonly number[] = []): void {
    for (const waiter of [...this.#waiters]) {
      if (waiter.workerId === workerId) waiter.answer({ kind: "wait" });
    }
    this.#requeued(this.#work?.leases.releaseWorker(workerId, except) ?? [], reason);
  }

  releaseLease(leaseId: number, reason: string): void {
    this.#requeued(this.#work?.leases.releaseLease(leaseId) ?? [], reason);
  }

  expireLeases(): void {
    this.#requeued(this.#work?.leases.expire() ?? [], "its deadline passed");
  }

  #requeued(leases: readonly Lease[], reason: string): void {
    for (const lease of leases) this.#work?.onRequeued?.(lease, reason);
    if (leases.length > 0) this.#serve();
  }

  #serve(): void {
    for (const waiter of [...this.#waiters]) {
      const task = this.#grant(waiter.workerId);
      if (task === undefined) return;
      waiter.answer(task);
    }
  }

  #grant(workerId: string): Task | undefined {
    const work = this.#work;
    const lease = work?.leases.take(workerId);
    if (work === undefined || lease === undefined) return undefined;
    work.onGranted?.(lease);
    return work.taskFor(lease);
  }

  async #wait(workerId: string, maxWaitMs: number, signal: AbortSignal): Promise<Task> {
    return new Promise<Task>((resolve) => {
      const answer = (task: Task): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", giveUp);
        this.#waiters.delete(waiter);
        resolve(task);
      };
      const giveUp = (): void => answer({ kind: "wait" });
      const timer = setTimeout(giveUp, maxWaitMs);
      const waiter: Waiter = { workerId, answer };
      signal.addEventListener("abort", giveUp);
      this.#waiters.add(waiter);
    });
  }
}
