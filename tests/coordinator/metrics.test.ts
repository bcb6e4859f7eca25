import assert from "node:assert/strict";
import { test } from "node:test";
import { scriptedRun } from "#bench/display/scripted-run";
import { CoordinatorMetrics } from "#coordinator/metrics";
import type { LockstepEvent } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { runProgram } from "#tests/support/run-program";
import { needs, toolPath } from "#tests/support/tools";
import { WorkerMetrics } from "#worker/metrics";

function metricsOf(events: Iterable<LockstepEvent>): CoordinatorMetrics {
  const bus = new InProcessEventBus((error) => {
    throw error;
  });
  const metrics = new CoordinatorMetrics(bus);
  for (const event of events) bus.publish(event);
  return metrics;
}

function workerMetrics(): WorkerMetrics {
  let nowMs = 0;
  const metrics = new WorkerMetrics(
    {
      deviceType: "cpu",
      read: () => ({ utilization: 0.5, memoryUsedBytes: 1e9, memoryTotalBytes: 4e9 }),
    },
    () => (nowMs += 1_000),
  );
  const { observer } = metrics;
  observer.registered?.("worker-1", "127.0.0.1:1");
  observer.microBatchComputed?.({ numTokens: 1_024, seconds: 1.5 });
  observer.groupCompleted?.({ step: 1, group: 0, seconds: 2, stale: false });
  observer.bytesTransferred?.("gradients", 100);
  observer.bytesTransferred?.("parameters", 200);
  observer.parametersLoaded?.(7);
  return metrics;
}

/** Value of one series in the text format. */
function series(text: string, name: string): number {
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${name} `));
  assert.ok(line, `no series ${name}`);
  return Number(line.slice(name.length + 1));
}

const run = [...scriptedRun({ loseWorkerAtStep: 4 })].map(({ event }) => event);

test("a run's events add up", async () => {
  const text = await metricsOf(run).registry.metrics();
  const steps = run.filter((event) => event.type === "step.completed");
  const sum = (pick: (event: (typeof steps)[number]) => number): number =>
    steps.reduce((total, event) => total + pick(event), 0);
  const value = (name: string): number => series(text, `lockstep_${name}`);
  assert.equal(value("training_steps_total"), 14);
  assert.equal(value("training_samples_total"), 14 * 8);
  assert.equal(
    value("training_tokens_total"),
    sum(({ numTokens }) => numTokens),
  );
  assert.equal(value("training_loss"), steps.at(-1)?.loss);
  assert.equal(value("evaluation_loss"), 3.3391);
  assert.equal(value("worker_failures_total"), 1);
  assert.equal(value("gradient_groups_requeued_total"), 1);
  assert.equal(value("step_duration_seconds_count"), 14);
  assert.ok(Math.abs(value("step_duration_seconds_sum") - sum((e) => e.stepSeconds)) < 1e-9);
  assert.equal(value('reducer_received_bytes_total{shard="0"}'), 14 * 134e6);
  assert.equal(value('rpc_requests_total{method="CompleteTask",code="OK"}'), 28);
  // Totals of the worker's device up to its last report, lost or not.
  assert.equal(value('workers_device_seconds_total{device_type="cpu"}'), 6 * 14 + 6 * 4);
});

test("steps without an update are counted, and the loss scale is 1 where nothing scales", async () => {
  const step = run.find((event) => event.type === "step.completed");
  assert.ok(step !== undefined);
  const skipped = { ...step, gradientNorm: Number.POSITIVE_INFINITY, lossScale: 65_536 };
  const scaled = await metricsOf([skipped, { ...step, lossScale: 32_768 }]).registry.metrics();
  assert.equal(series(scaled, "lockstep_training_skipped_steps_total"), 1);
  assert.equal(series(scaled, "lockstep_training_loss_scale"), 32_768);
  const plain = await metricsOf(run).registry.metrics();
  assert.equal(series(plain, "lockstep_training_skipped_steps_total"), 0);
  assert.equal(series(plain, "lockstep_training_loss_scale"), 1);
});

test("a lost worker's gauges go, one that left is no failure", async () => {
  const text = await metricsOf(run).registry.metrics();
  assert.doesNotMatch(text, /device_utilization_ratio\{worker="worker-2"/);
  assert.equal(series(text, 'lockstep_workers{state="lost"}'), 1);
  assert.equal(series(text, 'lockstep_workers{state="idle"}'), 0);
});

test("workers that come and go leave no series but their part of totals", async () => {
  const visit = (n: number): readonly LockstepEvent[] => {
    const workerId = `w-${n}`;
    const device = { deviceType: "gpu", utilization: 1, memoryUsedBytes: 1, memoryTotalBytes: 2 };
    return [
      { type: "worker.joined", workerId, host: "h", pid: n, deviceKind: "k", deviceType: "gpu" },
      { type: "worker.state", workerId, state: "computing" },
      { type: "worker.telemetry", workerId, ...device, deviceSeconds: 3 } as LockstepEvent,
      { type: n % 2 === 0 ? "worker.lost" : "worker.left", workerId, reason: "gone" },
    ];
  };
  const numVisits = 200;
  const visits = Array.from({ length: numVisits }, (_, n) => visit(n)).flat();
  const text = await metricsOf(visits).registry.metrics();
  assert.doesNotMatch(text, /worker="w-/);
  assert.equal(series(text, 'lockstep_workers_device_seconds_total{device_type="gpu"}'), 600);
  assert.equal(series(text, 'lockstep_workers{state="lost"}'), numVisits / 2);
  assert.equal(series(text, 'lockstep_workers{state="computing"}'), 0);
});

test("a worker that registers again does not turn its device seconds back", async () => {
  const telemetry = (deviceSeconds: number): LockstepEvent => ({
    type: "worker.telemetry",
    workerId: "w",
    deviceType: "gpu",
    utilization: 1,
    memoryUsedBytes: 1,
    memoryTotalBytes: 2,
    deviceSeconds,
  });
  const text = await metricsOf([10, 25, 5, 8].map(telemetry)).registry.metrics();
  assert.equal(series(text, 'lockstep_workers_device_seconds_total{device_type="gpu"}'), 33);
});

test("a worker's observer fills its metrics", async () => {
  const text = await workerMetrics().registry.metrics();
  const value = (name: string): number => series(text, `lockstep_${name}`);
  assert.equal(value("worker_microbatches_total"), 1);
  assert.equal(value("worker_tokens_total"), 1_024);
  assert.equal(value("worker_compute_seconds_total"), 1.5);
  assert.equal(value("worker_sent_bytes_total"), 100);
  assert.equal(value("worker_received_bytes_total"), 200);
  assert.equal(value("worker_parameters_version"), 7);
  assert.equal(value('device_utilization_ratio{worker="worker-1",device_type="cpu"}'), 0.5);
});

test("promtool accepts both expositions", needs("promtool"), async () => {
  for (const { registry } of [metricsOf(run), workerMetrics()]) {
    const { code, stdout, stderr } = await runProgram(toolPath("promtool"), ["check", "metrics"], {
      input: await registry.metrics(),
    });
    assert.equal(code, 0, stdout + stderr);
  }
});
