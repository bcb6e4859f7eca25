import type { TensorStates } from "#lib/core/shard-arrays";
import type { EventBus } from "#lib/wire/event-bus";
import type { CheckpointState, CoordinatorOptions, Snapshot } from "./options.js";

/** Writes snapshots in the background, one at a time. */
export class Checkpointer {
  readonly #save: NonNullable<CoordinatorOptions["checkpointing"]>["save"];
  readonly #bus: EventBus;
  readonly #onError: (error: unknown) => void;
  #last: Promise<void> = Promise.resolve();
  /** Memory of a snapshot that has been written. */
  #free: Snapshot | undefined;

  constructor(options: {
    readonly save: NonNullable<CoordinatorOptions["checkpointing"]>["save"];
    readonly bus: EventBus;
    readonly onError: (error: unknown) => void;
  }) {
    this.#save = options.save;
    this.#bus = options.bus;
    this.#onError = options.onError;
  }

  /**
   * Waits for the save before, so that at most one snapshot is in memory; returns when this one has begun.
   *
   * @param tensorStates copied, as the snapshot is
   */
  async begin(
    takeSnapshot: (into: Snapshot | undefined) => Promise<Snapshot>,
    state: CheckpointState,
    tensorStates: TensorStates,
  ): Promise<void> {
    await this.#last;
    const snapshot = await takeSnapshot(this.#free);
    this.#free = undefined;
    const kept = Object.entries(tensorStates).map(([name, values]) => [name, values.slice()]);
    this.#last = this.#write(snapshot, state, Object.fromEntries(kept)).catch(this.#onError);
  }

  /** Resolves when nothing is being written. */
  async settled(): Promise<void> {
    await this.#last;
  }

  async #write(
    snapshot: Snapshot,
    state: CheckpointState,
    tensorStates: TensorStates,
  ): Promise<void> {
    const startedAt = performance.now();
    const { directory, bytes } = await this.#save(snapshot, state, tensorStates);
    this.#free = snapshot;
    const seconds = (performance.now() - startedAt) / 1000;
    this.#bus.publish({ type: "checkpoint.saved", step: state.step, directory, seconds, bytes });
  }
}
