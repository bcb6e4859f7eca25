import { awakeMs } from "#lib/core/awake-clock";
import { isLockstepError } from "#lib/core/errors/index";

/**
 * How long a worker waits for a run that was stopped: from its goodbye until the run gives it work again. A
 * coordinator that answers, and is stopped once more before it had work, does not begin the time anew.
 */
export class AwaitedReturn {
  readonly #timeoutMs: number;
  #giveUpAtMs: number | undefined;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** The coordinator said goodbye, and may come back. */
  interrupted(): void {
    this.#giveUpAtMs ??= awakeMs() + this.#timeoutMs;
  }

  /** The run is there and goes on. */
  resumed(): void {
    this.#giveUpAtMs = undefined;
  }

  /** Time that is left; undefined: no return is awaited. */
  get leftMs(): number | undefined {
    return this.#giveUpAtMs === undefined ? undefined : Math.max(0, this.#giveUpAtMs - awakeMs());
  }

  /**
   * Whether it is what a wait in vain ends with.
   * @param isOtherRun another run is at the address, and over
   */
  endedBy(error: unknown, isOtherRun: boolean): boolean {
    const { leftMs } = this;
    if (isOtherRun) return leftMs === undefined || leftMs === 0;
    const isAway = isLockstepError(error) && error.code === "E_COORDINATOR_UNREACHABLE";
    return isAway && leftMs !== undefined;
  }
}
