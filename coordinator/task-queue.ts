import { awakeMs } from "#lib/core/awake-clock";
import { LockstepError } from "#lib/core/errors/index";
import type { CompleteTaskRequest, Task, TaskResult } from "#lib/wire/control-messages";
import { answeredSoon } from "./answered-soon.js";
import { Allotment, type AllottedWork } from "./allotment.js";
import type { Lease } from "./leases.js";
import { Paces, type PaceNews } from "./paces.js";

/** A piece of the run that is done by leases: a training step, an evaluation, a generation. */
export interface Work extends AllottedWork {
  taskFor(lease: Lease): Task;
  /**
   * Takes a result of a lease that counts.
   * @throws E_MESSAGE_INVALID for one of the wrong form, E_TOKEN_COUNT for one of other rows; the lease goes on
   */
  accept(lease: Lease, result: TaskResult): void;
  /** Whether a worker may do an item. @default true */
  mayTake?(item: number, workerId: string): boolean;
  /** What must be known of a lease elsewhere before its worker gets it. */
  onGranted?(lease: Lease): Promise<void> | void;
  /** Leases that do not count any more. */
  onReleased?(leases: readonly Lease[]): void;
  onOverdue?(lease: Lease): void;
  onRequeued?(lease: Lease, reason: string): void;
  /** Members came or went: whoever is missing now is not waited for. */
  membersChanged?(): void;
}

interface Waiter {
  readonly workerId: string;
  readonly answer: (task: Task | Promise<Task>) => void;
}

/**
 * Hands the items of the current work to the workers that ask, and holds those that ask when there
 * is nothing to do. One work is open at a time: a step's sums need all of the step before.
 */
export class TaskQueue {
  /** In the order in which they asked. */
  readonly #waiters = new Set<Waiter>();
  readonly #paces: Paces;
  readonly #allotment: Allotment;
  /** Who had something to do in the current work. */
  readonly #employed = new Set<string>();
  #work: Work | undefined;
  #end: Omit<Task & { kind: "finished" }, "kind"> | undefined;

  /**
   * @param now milliseconds, monotonic
   * @param haveSameBits whether all workers compute the same bits
   */
  constructor(now = awakeMs, onPaceNews?: (news: PaceNews) => void, haveSameBits = true) {
    this.#paces = new Paces(now, onPaceNews);
    this.#allotment = new Allotment(this.#paces, now, haveSameBits);
  }

  open(work: Work): void {
    this.#work = work;
    this.#employed.clear();
    this.serve();
  }

  close(): void {
    const kind = this.#work?.kind;
    this.#work = undefined;
    if (kind === undefined) return;
    for (const { workerId } of this.#waiters) {
      if (!this.#employed.has(workerId)) this.#paces.doubt(workerId, kind);
    }
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
    this.#answerWaiting(workerId);
    this.#paces.endedAllBut(workerId, heldLeases);
    const unknown = this.#work?.leases.releaseWorker(workerId, heldLeases, "unreported") ?? [];
    this.#released(unknown, `${workerId} asked for other work`);
    return this.#grant(workerId) ?? this.#wait(workerId, maxWaitMs, signal);
  }

  /**
   * @returns whether the result came too late to be needed
   * @throws E_LEASE_NOT_HELD for a lease of another worker, and what `Work.accept` throws
   */
  complete(request: CompleteTaskRequest): boolean {
    const work = this.#work;
    this.#paces.ended(request.lease);
    const lease = work?.leases.find(request.lease);
    if (work === undefined || lease === undefined) return true;
    if (lease.workerId !== request.workerId) {
      throw new LockstepError("E_LEASE_NOT_HELD", {
        ...{ worker: request.workerId, lease: lease.id, holder: lease.workerId },
        ...{ step: 0, group: lease.item },
      });
    }
    const isLate = work.leases.isDone(lease.item);
    work.accept(lease, request.result);
    return isLate;
  }

  releaseWorker(workerId: string, reason: string): void {
    this.#answerWaiting(workerId);
    this.#paces.forget(workerId);
    this.#released(this.#work?.leases.releaseWorker(workerId) ?? [], reason);
  }

  /** Whether a worker has asked for work that there is none of. */
  isWaiting(workerId: string): boolean {
    return [...this.#waiters].some((waiter) => waiter.workerId === workerId);
  }

  #answerWaiting(workerId: string): void {
    for (const waiter of [...this.#waiters]) {
      if (waiter.workerId === workerId) waiter.answer({ kind: "wait" });
    }
  }

  /** Takes a lease back that this worker holds. */
  releaseLease(leaseId: number, reason: string, workerId: string): void {
    if (this.#work?.leases.find(leaseId)?.workerId !== workerId) return;
    this.#released(this.#work.leases.releaseLease(leaseId), reason);
  }

  expireLeases(): void {
    const work = this.#work;
    const overdue = work?.leases.expire() ?? [];
    if (overdue.length === 0) return;
    work?.onReleased?.(overdue.filter(({ isReported }) => isReported));
    this.#requeued(overdue, "its deadline passed");
    for (const lease of overdue) work?.onOverdue?.(lease);
  }

  #released(leases: readonly Lease[], reason: string): void {
    if (leases.length > 0) this.#work?.onReleased?.(leases);
    this.#requeued(leases, reason);
  }

  #requeued(leases: readonly Lease[], reason: string): void {
    const open = leases.filter(({ item }) => this.#work?.leases.isDone(item) === false);
    for (const lease of open) this.#work?.onRequeued?.(lease, reason);
    // Who may do what can depend on who is there, so others are asked for whatever was released.
    this.serve();
  }

  /** Members came or went. */
  membersChanged(): void {
    this.#work?.membersChanged?.();
    this.serve();
  }

  /** Hands out what those who wait may do. */
  serve(): void {
    for (const waiter of [...this.#waiters]) {
      const task = this.#grant(waiter.workerId);
      if (task !== undefined) waiter.answer(task);
    }
  }

  #grant(workerId: string): Promise<Task> | undefined {
    const work = this.#work;
    if (work === undefined) return undefined;
    const idle = [...this.#waiters].map((waiter) => waiter.workerId);
    const lease = this.#allotment.lease(work, workerId, idle);
    if (lease === undefined) return undefined;
    this.#employed.add(workerId);
    this.#paces.begun(lease, work.kind);
    return grantedTask(work, lease);
  }

  async #wait(workerId: string, maxWaitMs: number, signal: AbortSignal): Promise<Task> {
    return new Promise<Task>((resolve) => {
      const answer = (task: Task | Promise<Task>): void => {
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

/**
 * A task, once its lease is known wherever it must be; `wait` where that takes long, or it was taken back meanwhile.
 * A worker that asks again without a lease gives it back.
 */
async function grantedTask(work: Work, lease: Lease): Promise<Task> {
  if (!(await answeredSoon(work.onGranted?.(lease)))) return { kind: "wait" };
  return work.leases.find(lease.id) === undefined ? { kind: "wait" } : work.taskFor(lease);
}
