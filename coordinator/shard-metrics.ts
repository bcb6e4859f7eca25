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
  readonly #takeovers: Counter;
  readonly #mirrors: Gauge;
  readonly #copySeconds: Counter;
  readonly #comparisons: Counter;
  readonly #comparisonSeconds: Counter;
  readonly #shards: Gauge;
  /** Shards that are there. */
  readonly #there = new Set<number>();
  /** Shards that have one. */
  readonly #mirrored = new Set<number>();

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
    this.#takeovers = this.#counter(
      "reducer_takeovers_total",
      "Times that the mirror of a reducer shard took its place, because its process was lost.",
    );
    this.#mirrors = this.#gauge(
      "reducer_mirrors",
      "Reducer shards that have a second copy which is up to date.",
    );
    this.#copySeconds = this.#counter(
      "reducer_mirror_copy_seconds_total",
      "Seconds that new mirrors took to copy what their shards keep.",
    );
    this.#comparisons = this.#counter(
      "reducer_mirror_comparisons_total",
      "Times that all that a shard keeps was compared with its mirror's, and was the same.",
    );
    this.#comparisonSeconds = this.#counter(
      "reducer_mirror_comparison_seconds_total",
      "Seconds that these comparisons took, each shard's counted alone.",
    );
    this.#shards = this.#gauge("reducer_shards", "Reducer shards that are there.");
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
        // The first is told of each shard when it has started.
        this.#there.add(event.shard);
        this.#shards.set(this.#there.size);
        this.#waitingPushes.set({ shard: String(event.shard) }, event.numPushes);
        break;
      case "shard.lost":
        this.#lost.inc();
        this.#there.delete(event.shard);
        this.#shards.set(this.#there.size);
        break;
      case "shard.takenOver":
        this.#takeovers.inc();
        this.#setMirrored(event.shard, false);
        break;
      case "mirror.lost":
        this.#setMirrored(event.shard, false);
        break;
      case "mirror.inPlace":
        this.#setMirrored(event.shard, true);
        this.#copySeconds.inc(event.seconds);
        break;
      case "mirror.compared":
        this.#comparisons.inc();
        this.#comparisonSeconds.inc(event.seconds);
        break;
      case "shards.rolledBack":
        this.#mirrored.clear();
        this.#mirrors.set(0);
        this.#rollbacks.inc();
        this.#repeatedSteps.inc(event.numSteps);
        break;
      default:
        break;
    }
  }

  #setMirrored(shard: number, isMirrored: boolean): void {
    if (isMirrored) this.#mirrored.add(shard);
    else this.#mirrored.delete(shard);
    this.#mirrors.set(this.#mirrored.size);
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name: `lockstep_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name: `lockstep_${name}`, help, labelNames, registers: [this.#registry] });
  }
}
