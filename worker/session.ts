import type { ShardTransfers } from "./transfers.js";

/** Gradient buffers of a worker: one is filled while the other is sent. */
export const numGradientBuffers = 2;

interface Delivery {
  readonly lease: number;
  /** Settles when the buffer is free again; never rejects. */
  readonly ended: Promise<void>;
}

/**
 * A worker's membership, from one registration to the next: its connections to the shards, and the
 * groups whose gradients are on their way while it computes on. A delivery that fails ends the session:
 * the coordinator then takes back every lease at once, whichever the worker is at.
 */
export class Session {
  readonly workerId: string;
  readonly transfers: ShardTransfers;
  readonly #end = new AbortController();
  readonly #ending = (): void => this.end();
  readonly #stop: AbortSignal | undefined;
  /** By gradient buffer. */
  readonly #deliveries = new Map<number, Delivery>();
  #failure: unknown;

  /** @param stop aborting it ends the session */
  constructor(workerId: string, transfers: ShardTransfers, stop: AbortSignal | undefined) {
    this.workerId = workerId;
    this.transfers = transfers;
    this.#stop = stop;
    if (stop?.aborted === true) this.end();
    stop?.addEventListener("abort", this.#ending);
  }

  /** Aborted when the session is over: all its calls end. */
  get signal(): AbortSignal {
    return this.#end.signal;
  }

  /** What the session failed with: its first delivery that failed, for one; what fails after the session's end is not a cause. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Leases of the groups on their way. */
  get heldLeases(): readonly number[] {
    return [...this.#deliveries.values()].map(({ lease }) => lease);
  }

  /** The lowest buffer that nothing reads, so that the second one's memory is touched only when needed. */
  freeBuffer(): number {
    for (let buffer = 0; buffer < numGradientBuffers; buffer++) {
      if (!this.#deliveries.has(buffer)) return buffer;
    }
    throw new Error("every gradient buffer is being sent");
  }

  /** Waits until a group may be computed, which takes a free buffer. @throws what a delivery failed with */
  async untilBufferFree(): Promise<void> {
    while (this.#deliveries.size >= numGradientBuffers) {
      await Promise.race([...this.#deliveries.values()].map(({ ended }) => ended));
    }
    this.throwIfFailed();
  }

  /** Waits until nothing is on its way. @throws what a delivery failed with */
  async untilSent(): Promise<void> {
    await Promise.all([...this.#deliveries.values()].map(({ ended }) => ended));
    this.throwIfFailed();
  }

  /** Keeps the buffer from now until `deliver` settles. */
  start(buffer: number, lease: number, deliver: () => Promise<void>): void {
    const ended = deliver()
      .catch((error: unknown) => this.fail(error))
      .then(() => {
        this.#deliveries.delete(buffer);
      });
    this.#deliveries.set(buffer, { lease, ended });
  }

  /** @throws `failure`, if there is one */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends the session for this reason. */
  fail(error: unknown): void {
    if (!this.signal.aborted) this.#failure = error;
    this.end();
  }

  end(): void {
    this.#end.abort();
  }

  /** Gives up what is on its way. @returns when nothing reads the buffers any more */
  async close(): Promise<void> {
    this.end();
    this.#stop?.removeEventListener("abort", this.#ending);
    await Promise.all([...this.#deliveries.values()].map(({ ended }) => ended));
    this.transfers.close();
  }
}
