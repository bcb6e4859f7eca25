import type { LockstepEvent } from "#lib/core/events";

/** Where the facts of a run go. Publishing never fails and never waits. */
export interface EventBus {
  publish(event: LockstepEvent): void;
  /** @returns a function that ends the subscription. */
  subscribe(listener: (event: LockstepEvent) => void): () => void;
}

/** The subscriber side of the event bus. */
export type EventSource = Pick<EventBus, "subscribe">;

/** A program may listen for warnings; Node writes them on standard error. */
function warnOfListener(error: unknown): void {
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.emitWarning("a listener of a run's events failed", { type: "ListenerWarning", detail });
}

/** The default: listeners are called at once, in the order in which they subscribed. */
export class InProcessEventBus implements EventBus {
  readonly #listeners = new Set<(event: LockstepEvent) => void>();
  readonly #onListenerError: (error: unknown) => void;

  constructor(onListenerError: (error: unknown) => void = warnOfListener) {
    this.#onListenerError = onListenerError;
  }

  publish(event: LockstepEvent): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch (error) {
        // A display that fails must not stop the training.
        this.#onListenerError(error);
      }
    }
  }

  subscribe(listener: (event: LockstepEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
