import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";

interface PanelQuery {
  readonly panel: string;
  readonly expr: string;
}

const dashboardFile = join(packageRoot, "grafana", "dashboards", "lockstep.json");

interface DashboardPanel {
  readonly title?: string;
  readonly targets?: readonly { readonly expr?: string }[];
  readonly panels?: readonly DashboardPanel[];
}

/** Every query of the committed dashboard, as written: with Grafana's variables. */
export function panelQueries(): readonly PanelQuery[] {
  const dashboard = JSON.parse(readFileSync(dashboardFile, "utf8")) as {
    panels: readonly DashboardPanel[];
  };
  const collect = (panels: readonly DashboardPanel[]): PanelQuery[] =>
    panels.flatMap((panel) => [
      ...(panel.targets ?? []).map(({ expr }) => ({
        panel: panel.title ?? "",
        expr: expr ?? "",
      })),
      ...collect(panel.panels ?? []),
    ]);
  return collect(dashboard.panels);
}

/** Puts values in for Grafana's variables, as Grafana does before it asks Prometheus. */
export function interpolate(
  expr: string,
  values: { readonly rateInterval: string; readonly job?: string; readonly instance?: string },
): string {
  const filled = expr
    .replaceAll("$__rate_interval", values.rateInterval)
    .replaceAll("$job", values.job ?? ".*")
    .replaceAll("$instance", values.instance ?? ".*");
  const left = /\$\w+/.exec(filled);
  if (left !== null) throw new Error(`No value for ${left[0]} in ${expr}`);
  return filled;
}

/** The names of the metrics that an expression reads. */
export function metricNames(expr: string): readonly string[] {
  return [...new Set(expr.match(/\b(?:lockstep|process|nodejs|up)_[a-zA-Z0-9_]+/g) ?? [])];
}
