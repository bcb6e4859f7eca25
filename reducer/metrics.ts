import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { addProcessMetrics } from "#lib/core/process-metrics";
import type { ShardNotice, ShardStats, ShardStatus } from "#lib/wire/reducer-messages";

/** Prometheus metrics of one reducer process. */
export class ReducerMetrics {
  readonly registry = new Registry();
  readonly #received: Counter;
  readonly #sent: Counter;
  readonly #rpcs: Histogram;
  readonly #refused: Counter;
  readonly #waiting: Gauge;

  /** @param status where the shard is, while there is one */
  constructor(status: () => ShardStatus | undefined) {
    const { registry } = this;
    const registers = [registry];
    addProcessMetrics(registry, "reducer");
    this.#received = new Counter({
      name: "lockstep_reducer_received_bytes_total",
      help: "Gradient bytes received from workers.",
      registers,
    });
    this.#sent = new Counter({
      name: "lockstep_reducer_sent_bytes_total",
      help: "Parameter bytes sent to workers.",
      registers,
    });
    this.#rpcs = new Histogram({
      name: "lockstep_reducer_rpc_duration_seconds",
      help: "Calls of workers and of the coordinator, by method and gRPC status.",
      labelNames: ["method", "code"],
      buckets: [0.001, 0.01, 0.1, 1, 10, 60],
      registers,
    });
    this.#refused = new Counter({
      name: "lockstep_reducer_refused_connections_total",
      help: "Connections that were closed because there were too many, or because they showed nothing.",
      labelNames: ["reason"],
      registers,
    });
    this.#waiting = new Gauge({
      name: "lockstep_reducer_waiting_pushes",
      help: "Gradients that wait because groups before them are late.",
      registers,
    });
    new Gauge({
      name: "lockstep_reducer_parameters_version",
      help: "Newest version of the parameters that is published.",
      registers,
      collect() {
        const version = status()?.version;
        if (version !== undefined) this.set(version);
      },
    });
    let counted = 0;
    new Counter({
      name: "lockstep_reducer_updates_total",
      help: "Updates of its range that this process made.",
      registers,
      collect() {
        const { numApplied = 0 } = status() ?? {};
        if (numApplied > counted) this.inc(numApplied - counted);
        counted = numApplied;
      },
    });
  }

  transferred(direction: keyof ShardStats, payloadBytes: number): void {
    (direction === "receivedBytes" ? this.#received : this.#sent).inc(payloadBytes);
  }

  happened(notice: ShardNotice): void {
    if (notice.type === "rpc") {
      const { method, code, seconds } = notice;
      this.#rpcs.observe({ method, code }, seconds);
    }
    if (notice.type === "connectionsRefused") {
      this.#refused.inc({ reason: notice.reason }, notice.numConnections);
    }
    if (notice.type === "pushesWaiting") this.#waiting.set(notice.numPushes);
  }
}
