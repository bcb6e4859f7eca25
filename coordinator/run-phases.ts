import type { EventBus } from "#lib/wire/event-bus";

type Phase = "training" | "paused" | "evaluating" | "generating" | "measuring";

/** What a run says that it is at: a phase of its own, or that it waits while too few workers are there. */
export class RunPhases {
  readonly #bus: EventBus;
  /** The coordinator says at its start that it waits; what was said of it last. */
  #waiting: string | undefined = "";
  #numAwaited = 1;
  #phase: readonly [phase: Phase, detail: string | undefined] | undefined;

  constructor(bus: EventBus) {
    this.#bus = bus;
  }

  begin(phase: Phase, detail?: string): void {
    this.#phase = [phase, detail];
    if (this.#waiting !== undefined) return;
    this.#bus.publish({
      type: "phase.changed",
      phase,
      ...(detail === undefined ? {} : { detail }),
    });
  }

  /** From now on the run waits while fewer workers than this are there. */
  await(numAwaited: number, numWorkers: number): void {
    this.#numAwaited = numAwaited;
    this.membersChanged(numWorkers);
  }

  membersChanged(numWorkers: number): void {
    if (numWorkers >= this.#numAwaited) {
      if (this.#waiting === undefined) return;
      this.#waiting = undefined;
      if (this.#phase !== undefined) this.begin(...this.#phase);
      return;
    }
    const detail =
      this.#numAwaited > 1
        ? `${numWorkers} of the ${this.#numAwaited} workers that min_workers asks for are here; the run goes on when more join`
        : "no worker is left; the run goes on when one joins";
    // Before the first worker came the coordinator's own word holds, but for what it is not.
    const isSaid = this.#waiting === detail || (this.#waiting === "" && this.#numAwaited === 1);
    if (isSaid) return;
    this.#waiting = detail;
    this.#bus.publish({ type: "phase.changed", phase: "waiting-for-workers", detail });
  }
}
