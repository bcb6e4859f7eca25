import { setImmediate as turn } from "node:timers/promises";
import { LeaseTable } from "#coordinator/leases";
import { TaskQueue, type Work } from "#coordinator/task-queue";
import type { PaceNews } from "#coordinator/paces";

export interface SimulatedWorker {
  readonly id: string;
  /** Milliseconds of a group; called once for each that it computes. */
  readonly groupMs: () => number;
}

/** The real queue and lease tables on a clock that jumps from event to event: no timer, no processes. */
export class SimulatedCluster {
  readonly queue: TaskQueue;
  readonly news: PaceNews[] = [];
  /** Groups of each step by the worker whose result counted, and leases that were given for them. */
  readonly steps: { readonly seconds: number; readonly numLeases: number }[] = [];
  #nowMs = 0;
  #nextLeaseId = 1;
  readonly #events: { readonly atMs: number; readonly happen: () => void }[] = [];

  /** @param haveSameBits whether all compute the same bits */
  constructor(workers: readonly SimulatedWorker[], haveSameBits = true) {
    this.queue = new TaskQueue(
      () => this.#nowMs,
      (news) => this.news.push(news),
      haveSameBits,
    );
    for (const worker of workers) void this.join(worker);
  }

  /** A worker that asks, computes and reports until the end. */
  async join({ id, groupMs }: SimulatedWorker): Promise<void> {
    for (;;) {
      const task = await this.queue.next(id, 2 ** 31 - 1, new AbortController().signal);
      if (task.kind === "finished") return;
      if (task.kind !== "evaluate") continue;
      await new Promise<void>((done) => this.#at(this.#nowMs + groupMs(), done));
      this.queue.complete({
        ...{ workerId: id, lease: task.lease },
        result: { kind: "losses", sums: [] },
      });
    }
  }

  /** Opens a step and lets time pass until its groups are done. */
  async step(numGroups: number): Promise<void> {
    const startMs = this.#nowMs;
    const leases = new LeaseTable({
      numItems: numGroups,
      leaseTimeoutMs: 600_000,
      now: () => this.#nowMs,
      nextLeaseId: () => this.#nextLeaseId++,
    });
    let numLeases = 0;
    const work: Work = {
      ...{ leases, kind: "group" },
      taskFor: ({ id: lease }) => ({ kind: "evaluate", lease, version: 0, batches: [] }),
      mayTake: (item, workerId) => !leases.holds(workerId, item),
      onGranted: () => {
        numLeases += 1;
      },
      accept: ({ id, item }) => {
        leases.finish(id);
        leases.want(item, 0);
      },
    };
    this.queue.open(work);
    // As often as a coordinator looks.
    const tick = (): void => {
      if (leases.allDone) return;
      this.queue.membersChanged();
      this.#at(this.#nowMs + 1_000, tick);
    };
    this.#at(this.#nowMs + 1_000, tick);
    for (;;) {
      await turn();
      if (leases.allDone) break;
      const next = this.#events.shift();
      if (next === undefined) throw new Error("the step waits for nobody");
      this.#nowMs = next.atMs;
      next.happen();
    }
    this.queue.close();
    this.steps.push({ seconds: (this.#nowMs - startMs) / 1000, numLeases });
  }

  close(): void {
    this.queue.finish({ reason: "over", interrupted: false });
  }

  #at(atMs: number, happen: () => void): void {
    const later = this.#events.findIndex((event) => event.atMs > atMs);
    this.#events.splice(later < 0 ? this.#events.length : later, 0, { atMs, happen });
  }
}
