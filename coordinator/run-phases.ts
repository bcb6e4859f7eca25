import type { EventBus } from "#lib/wire/event-bus";

type Phase = "training" | "evaluating" | "generating";

/** What a run says that it is at: a phase of its own, or that it waits while nobody is there. */
export class RunPhases {
  readonly #bus: EventBus;
  /** The coordinator says at its start that it waits. */
  #isWaiting = true;
  #phase: Phase | undefined;

  constructor(bus: EventBus) {
    this.#bus = bus;
  }

  begin(phase: Phase): void {
    this.#phase = phase;
    if (!this.#isWaiting) this.#bus.publish({ type: "phase.changed", phase });
  }

  membersChanged(numWorkers: number): void {
    if (numWorkers > 0 !== this.#isWaiting) return;
    this.#isWaiting = numWorkers === 0;
    if (this.#isWaiting) {
      const detail = "no worker is left; the run goes on when one joins";
      this.#bus.publish({ type: "phase.changed", phase: "waiting-for-workers", detail });
    } else if (this.#phase !== undefined) this.begin(this.#phase);
  }
}
