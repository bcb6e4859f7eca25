import { Counter, Gauge, type Registry } from "prom-client";
import type { LockstepEvent } from "#lib/core/events";

/** Metrics of the reducer shards. */
export class ShardMetrics {
  readonly #registry: Registry;
  readonly #receivedBytes: Counter;
  readonly #sentBytes: Counter;
  readonly #waitingPushes: Gauge;
  readonly #lost: Counter;
  readonly #rollbacks: Counter;
  readonly #repeatedSteps: Counter;

  constructor(registry: Registry) {
    this.#registry = registry;
    this.#receivedBytes = this.#counter(
      "reducer_received_bytes_total",
      "Gradient bytes that a reducer shard received.",
      ["shard"],
    );
    this.#sentBytes = this.#counter(
      "reducer_sent_bytes_total",
      "Parameter bytes that a reducer shard sent.",
      ["shard"],
    );
    this.#waitingPushes = this.#gauge(
      "reducer_waiting_pushes",
      "Gradients that a reducer shard cannot take yet, because groups before them are late.",
      ["shard"],
    );
    this.#lost = this.#counter(
      "reducer_shards_lost_total",
      "Reducer shards that were lost with what they kept.",
    );
    this.#rollbacks = this.#counter(
      "training_rollbacks_total",
      "Times that all shards went back to what was saved, because one was lost.",
    );
    this.#repeatedSteps = this.#counter(
      "training_repeated_steps_total",
      "Steps that were made again, because a shard was lost.",
    );
  }

  observe(event: LockstepEvent): void {
    switch (event.type) {
      case "bytes.transferred": {
        const counter = event.direction === "gradients" ? this.#receivedBytes : this.#sentBytes;
        counter.inc({ shard: String(event.shard) }, event.bytes);
        break;
      }
      case "pushes.waiting":
        this.#waitingPushes.set({ shard: String(event.shard) }, event.numPushes);
        break;
      case "shard.lost":
        this.#lost.inc();
        break;
      case "shards.rolledBack":
        this.#rollbacks.inc();
        this.#repeatedSteps.inc(event.numSteps);
        break;
      default:
        break;
    }
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name: `lockstep_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name: `lockstep_${name}`, help, labelNames, registers: [this.#registry] });
  }
}
