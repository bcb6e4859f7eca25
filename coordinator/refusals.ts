import type { EventBus } from "#lib/wire/event-bus";
import type { RefusedPush } from "./shards.js";

/** Events a second: who is refused must not fill a log with it. */
const maxPerSecond = 5;

/** Tells of pushes that shards refused, the first few of each second; how many more there were is told with the next. */
export class Refusals {
  readonly #bus: EventBus;
  readonly #now: () => number;
  #second = -1;
  #numInSecond = 0;
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
    }
    this.#numInSecond += 1;
    if (this.#numInSecond > maxPerSecond) {
      this.#numUntold += 1;
      return;
    }
    const { workerId, peer, code, reason } = refused;
    const numUntold = this.#numUntold;
    this.#numUntold = 0;
    this.#bus.publish({ type: "push.refused", ...{ workerId, peer, code, reason, numUntold } });
  }
}
