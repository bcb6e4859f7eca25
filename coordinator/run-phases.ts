import type { EventBus } from "#lib/wire/event-bus";

type Phase = "training" | "evaluating" | "generating" | "measuring";

/** What a run says that it is at: a phase of its own, or that it waits while nobody is there. */
export class RunPhases {
  readonly #bus: EventBus;
  /** The coordinator says at its start that it waits. */
  #isWaiting = true;
  #phase: readonly [phase: Phase, detail: string | undefined] | undefined;

  constructor(bus: EventBus) {
    this.#bus = bus;
  }

  begin(phase: Phase, detail?: string): void {
    this.#phase = [phase, detail];
    if (this.#isWaiting) return;
    this.#bus.publish({
      type: "phase.changed",
      phase,
      ...(detail === undefined ? {} : { detail }),
    });
  }

  membersChanged(numWorkers: number): void {
    if (numWorkers > 0 !== this.#isWaiting) return;
    this.#isWaiting = numWorkers === 0;
    if (this.#isWaiting) {
      const detail = "no worker is left; the run goes on when one joins";
      this.#bus.publish({ type: "phase.changed", phase: "waiting-for-workers", detail });
    } else if (this.#phase !== undefined) this.begin(...this.#phase);
  }
}
