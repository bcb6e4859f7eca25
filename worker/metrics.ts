import { Counter, Gauge, Registry } from "prom-client";
import { addProcessMetrics } from "#lib/core/process-metrics";
import type { DeviceReading, WorkerObserver } from "./options.js";
import type { DeviceTelemetry } from "./telemetry.js";

/** Prometheus metrics of one worker: an observer of its loop and a reader of its device. */
export class WorkerMetrics {
  readonly registry = new Registry();
  readonly observer: WorkerObserver;
  #workerId = "";
  #isRegistered = false;

  constructor(telemetry: Pick<DeviceTelemetry, "deviceType" | "read">, nowMs: () => number) {
    const { registry } = this;
    addProcessMetrics(registry, "worker");
    const counter = (name: string, help: string): Counter =>
      new Counter({ name: `lockstep_worker_${name}`, help, registers: [registry] });
    const microBatches = counter("microbatches_total", "Micro-batches computed.");
    const tokens = counter("tokens_total", "Tokens of the micro-batches computed.");
    const computeSeconds = counter("compute_seconds_total", "Seconds spent in the engine.");
    const sentBytes = counter("sent_bytes_total", "Gradient bytes sent to reducer shards.");
    const receivedBytes = counter(
      "received_bytes_total",
      "Parameter bytes received from reducer shards.",
    );
    const groups = counter("groups_total", "Gradient groups computed and sent.");
    const version = new Gauge({
      name: "lockstep_worker_parameters_version",
      help: "Version of the parameters that the engine holds.",
      registers: [registry],
    });
    this.#addDevice(telemetry, nowMs);
    this.observer = {
      registered: (workerId) => {
        this.#workerId = workerId;
        this.#isRegistered = true;
      },
      microBatchComputed: ({ numTokens, seconds }) => {
        microBatches.inc();
        tokens.inc(numTokens);
        computeSeconds.inc(seconds);
      },
      groupCompleted: () => groups.inc(),
      bytesTransferred: (direction, bytes) => {
        (direction === "gradients" ? sentBytes : receivedBytes).inc(bytes);
      },
      parametersLoaded: (loaded) => version.set(loaded),
    };
  }

  get isRegistered(): boolean {
    return this.#isRegistered;
  }

  /** Gauges that are read when Prometheus asks. */
  #addDevice(telemetry: Pick<DeviceTelemetry, "deviceType" | "read">, nowMs: () => number): void {
    const labelNames = ["worker", "device_type"] as const;
    const labels = () => ({ worker: this.#workerId, device_type: telemetry.deviceType });
    const isRegistered = () => this.#isRegistered;
    const startedMs = nowMs();
    let countedSeconds = 0;
    const shared = { labelNames, registers: [this.registry] };
    new Counter({
      name: "lockstep_device_seconds_total",
      help: "Seconds for which this worker held its device; GPU hours are this over 3600.",
      ...shared,
      collect() {
        if (!isRegistered()) return;
        const seconds = (nowMs() - startedMs) / 1000;
        this.inc(labels(), seconds - countedSeconds);
        countedSeconds = seconds;
      },
    });
    const utilization = {
      name: "lockstep_device_utilization_ratio",
      help: "Share of the worker's device that was busy, 0 to 1.",
      value: (reading: DeviceReading) => reading.utilization,
    };
    const memoryUsed = {
      name: "lockstep_device_memory_used_bytes",
      help: "Memory of the worker's device in use.",
      value: (reading: DeviceReading) => reading.memoryUsedBytes,
    };
    const memoryTotal = {
      name: "lockstep_device_memory_total_bytes",
      help: "Memory of the worker's device.",
      value: (reading: DeviceReading) => reading.memoryTotalBytes,
    };
    for (const { value, ...texts } of [utilization, memoryUsed, memoryTotal]) {
      new Gauge({
        ...texts,
        ...shared,
        collect() {
          if (isRegistered()) this.set(labels(), value(telemetry.read()));
        },
      });
    }
  }
}
