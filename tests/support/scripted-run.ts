import type { FastifyInstance } from "fastify";
import { addEventStreamMetrics } from "#coordinator/event-stream-metrics";
import { CoordinatorMetrics } from "#coordinator/metrics";
import type { WorkerState } from "#lib/core/events";
import { createHttpServer, type HttpServerOptions, listenHttp } from "#lib/core/http-server";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { WorkerMetrics } from "#worker/metrics";
import type { ScrapeTarget } from "./prometheus.js";

/** Metrics endpoints of a coordinator and its workers, fed by a script instead of a run. */
interface ScriptedRun {
  readonly targets: readonly ScrapeTarget[];
  readonly coordinator: CoordinatorMetrics;
  readonly workers: readonly WorkerMetrics[];
  close(): Promise<void>;
}

const rpcMethods = ["Register", "NextTask", "CompleteTask", "Heartbeat"];
const devices = [
  { workerId: "worker-0", deviceType: "gpu" },
  { workerId: "worker-1", deviceType: "cpu" },
] as const;

/**
 * Starts the endpoints. Each scrape of the coordinator is preceded by one more step of the run, each
 * scrape of a worker by one more gradient group, so that rates depend on scrapes and not on time.
 */
export async function startScriptedRun(): Promise<ScriptedRun> {
  const bus = new InProcessEventBus();
  const coordinator = new CoordinatorMetrics(bus);
  let step = 0;
  addEventStreamMetrics(coordinator.registry, () => ({
    numPublished: step * 10,
    numDropped: step,
    numWaiting: 2,
  }));
  const advance = (): void => {
    step += 1;
    const states: readonly WorkerState[] = ["computing", "sending"];
    for (const [index, { workerId, deviceType }] of devices.entries()) {
      bus.publish({ type: "worker.state", workerId, state: states[(step + index) % 2] ?? "idle" });
      bus.publish({
        type: "worker.telemetry",
        workerId,
        deviceType,
        utilization: 0.75,
        memoryUsedBytes: 2e9,
        memoryTotalBytes: 8e9,
        deviceSeconds: step * 10,
      });
    }
    for (const method of rpcMethods) {
      bus.publish({ type: "rpc.handled", method, code: "OK", seconds: 0.003 });
    }
    for (const shard of [0, 1]) {
      bus.publish({ type: "bytes.transferred", direction: "gradients", shard, bytes: 1e6 });
      bus.publish({ type: "bytes.transferred", direction: "parameters", shard, bytes: 1e6 });
    }
    const syncSeconds = 0.5;
    bus.publish({
      type: "step.completed",
      step,
      totalSteps: 1000,
      epoch: step / 1000,
      loss: 3,
      learningRate: 1e-4,
      gradientNorm: 0.8,
      numRows: 8,
      numTokens: 4088,
      stepSeconds: 2,
      syncSeconds,
      tokensPerSecond: 2044,
    });
    bus.publish({
      type: "evaluation.completed",
      step,
      loss: 3.2,
      weight: 1000,
      metrics: { perplexity: Math.exp(3.2) },
      seconds: 1,
    });
    bus.publish({
      type: "checkpoint.saved",
      step,
      directory: "checkpoint",
      seconds: 3,
      bytes: 1e9,
    });
    bus.publish({ type: "group.requeued", step, group: 0, workerId: "worker-1", reason: "test" });
    bus.publish({ type: "worker.corrupted", workerId: "worker-1", spaces: ["frozen"], version: 3 });
    const ofSlow = { groupSeconds: 5, medianSeconds: 1 };
    bus.publish({ type: "worker.pace", workerId: "worker-1", isSlow: true, ...ofSlow });
    bus.publish({
      type: "group.leased",
      ...{ step, group: 0, workerId: "worker-0", attempt: 2, isBackup: true },
    });
    bus.publish({ type: "pushes.waiting", shard: 0, numPushes: 1 });
    bus.publish({ type: "worker.lost", workerId: "worker-2", reason: "test" });
  };

  const workers = devices.map(({ workerId, deviceType }) => {
    const reading = { utilization: 0.75, memoryUsedBytes: 2e9, memoryTotalBytes: 8e9 };
    let nowMs = 0;
    const metrics = new WorkerMetrics({ deviceType, read: () => reading }, () => (nowMs += 1000));
    metrics.observer.registered?.(workerId, "127.0.0.1:1");
    return metrics;
  });
  const work = (metrics: WorkerMetrics): void => {
    const { observer } = metrics;
    observer.microBatchComputed?.({ numTokens: 1024, seconds: 0.1 });
    observer.groupCompleted?.({ step, group: 0, seconds: 0.2, stale: false });
    observer.bytesTransferred?.("gradients", 1e6);
    observer.bytesTransferred?.("parameters", 1e6);
    observer.parametersLoaded?.(step);
  };

  const servers: FastifyInstance[] = [];
  const serve = async (
    registry: HttpServerOptions["registry"],
    before: () => void,
  ): Promise<string> => {
    const options: HttpServerOptions = {
      host: "127.0.0.1",
      port: 0,
      registry,
      isReady: () => true,
      what: "scripted run",
    };
    const { server } = createHttpServer(options);
    server.addHook("onRequest", async (request) => {
      if (request.url === "/metrics") before();
    });
    servers.push(server);
    return `127.0.0.1:${await listenHttp(server, options)}`;
  };
  const targets: ScrapeTarget[] = [
    { job: "lockstep-coordinator", address: await serve(coordinator.registry, advance) },
  ];
  for (const metrics of workers) {
    targets.push({
      job: "lockstep-worker",
      address: await serve(metrics.registry, () => work(metrics)),
    });
  }
  return {
    targets,
    coordinator,
    workers,
    close: async () => {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}
