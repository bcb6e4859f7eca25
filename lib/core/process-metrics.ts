import { readFileSync } from "node:fs";
import { join } from "node:path";
import { collectDefaultMetrics, Gauge, type Registry } from "prom-client";
import { packageRoot } from "./paths.js";

/**
 * prom-client's names that `promtool check metrics` refuses: gauges with the suffix of a counter, and
 * the gauges that would only repeat a histogram.
 */
const refusedByPromtool = [
  "nodejs_active_handles_total",
  "nodejs_active_requests_total",
  "nodejs_active_resources_total",
];

/** The process metrics that every Prometheus client has, and what is running here. */
export function addProcessMetrics(
  registry: Registry,
  component: "coordinator" | "worker" | "reducer",
): void {
  collectDefaultMetrics({ register: registry });
  for (const name of refusedByPromtool) registry.removeSingleMetric(name);
  new Gauge({
    name: "lockstep_build_info",
    help: "Always 1; the labels tell the version that runs.",
    labelNames: ["version", "node_version", "component"],
    registers: [registry],
  }).set({ version: packageVersion, node_version: process.versions.node, component }, 1);
}

export const packageVersion: string = (() => {
  const parsed: unknown = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  const version = (parsed as { version?: unknown }).version;
  return typeof version === "string" ? version : "unknown";
})();
