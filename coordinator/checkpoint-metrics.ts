import { Counter, Histogram, type Registry } from "prom-client";
import type { LockstepEvent } from "#lib/core/events";

/** Seconds: adapters on a local disk to a large model in a slow store. */
const saveBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320];

/** What saves of a run are told of. */
export class CheckpointMetrics {
  readonly #saved: Counter;
  readonly #bytes: Counter;
  readonly #waits: Counter;
  readonly #failures: Counter;
  readonly #duration: Histogram;

  constructor(registry: Registry) {
    const counter = (name: string, help: string): Counter =>
      new Counter({ name: `lockstep_checkpoint${name}`, help, registers: [registry] });
    this.#saved = counter("s_total", "Checkpoints saved.");
    this.#bytes = counter(
      "_saved_bytes_total",
      "Bytes of the checkpoints and results that were saved.",
    );
    this.#waits = counter(
      "_wait_seconds_total",
      "Seconds for which training stood still because of saves.",
    );
    this.#failures = counter(
      "_failures_total",
      "Attempts to save a checkpoint or the result that the file system refused.",
    );
    this.#duration = new Histogram({
      name: "lockstep_checkpoint_duration_seconds",
      help: "Seconds that a checkpoint took to write.",
      buckets: saveBuckets,
      registers: [registry],
    });
  }

  observe(event: LockstepEvent): void {
    if (event.type === "checkpoint.failed") this.#failures.inc();
    if (event.type !== "checkpoint.saved") return;
    this.#saved.inc();
    this.#duration.observe(event.seconds);
    this.#bytes.inc(event.bytes);
    this.#waits.inc(event.waitSeconds ?? 0);
  }
}
