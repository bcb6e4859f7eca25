import type { EventBus } from "#lib/wire/event-bus";
import type { RefusedPush } from "#lib/wire/reducer-messages";

/** Events a second of one worker, and of all: who is refused must not fill a log with it, nor hide others. */
const maxPerSecond = { ofWorker: 5, ofAll: 100 } as const;

/**
 * Tells of pushes that shards refused, the first few of each worker in each second; how many more there were is told
 * with the next.
 */
export class Refusals {
  readonly #bus: EventBus;
  readonly #now: () => number;
  #second = -1;
  #numInSecond = 0;
  /** Within the second, by worker. */
  readonly #numOf = new Map<string, number>();
  #numUntold = 0;

  /** @param now milliseconds, monotonic */
  constructor(bus: EventBus, now: () => number) {
    this.#bus = bus;
    this.#now = now;
  }

  add(refused: RefusedPush): void {
    const second = Math.floor(this.#now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#numInSecond = 0;
      this.#numOf.clear();
    }
    const { workerId, peer, code, reason } = refused;
    const numOfWorker = this.#numOf.get(workerId) ?? 0;
    if (numOfWorker >= maxPerSecond.ofWorker || this.#numInSecond >= maxPerSecond.ofAll) {
      this.#numUntold += 1;
      return;
    }
    this.#numInSecond += 1;
    this.#numOf.set(workerId, numOfWorker + 1);
    const numUntold = this.#numUntold;
    this.#numUntold = 0;
    this.#bus.publish({ type: "push.refused", ...{ workerId, peer, code, reason, numUntold } });
  }
}
