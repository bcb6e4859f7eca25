import { addEventStreamMetrics } from "#coordinator/event-stream-metrics";
import { CoordinatorMetrics } from "#coordinator/metrics";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { ReducerMetrics } from "#reducer/metrics";
import { WorkerMetrics } from "#worker/metrics";

/** A metric as its registry declares it. */
interface DeclaredMetric {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly component: "coordinator" | "worker" | "reducer";
}

/** Every metric that the endpoints can show, with or without a value yet. */
export async function declaredMetrics(): Promise<readonly DeclaredMetric[]> {
  const coordinator = new CoordinatorMetrics(new InProcessEventBus());
  addEventStreamMetrics(coordinator.registry, () => undefined);
  const reading = { utilization: 0, memoryUsedBytes: 0, memoryTotalBytes: 0 };
  const worker = new WorkerMetrics({ deviceType: "cpu", read: () => reading }, () => 0);
  const declared: DeclaredMetric[] = [];
  for (const [component, { registry }] of [
    ["coordinator", coordinator],
    ["worker", worker],
    ["reducer", new ReducerMetrics(() => undefined)],
  ] as const) {
    for (const { name, type, help } of await registry.getMetricsAsJSON()) {
      declared.push({ name, type: String(type), help, component });
    }
  }
  return declared;
}

/** The names of the series that metrics make: a histogram has three. */
export function seriesNames(metrics: readonly DeclaredMetric[]): ReadonlySet<string> {
  return new Set(
    metrics.flatMap(({ name, type }) =>
      type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
}
