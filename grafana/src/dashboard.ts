import * as common from "@grafana/grafana-foundation-sdk/common";
import {
  DashboardBuilder,
  DashboardCursorSync,
  type Dashboard,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  VariableRefresh,
  VariableSort,
} from "@grafana/grafana-foundation-sdk/dashboard";
import { DataqueryBuilder } from "@grafana/grafana-foundation-sdk/prometheus";
import { PanelBuilder as StatBuilder } from "@grafana/grafana-foundation-sdk/stat";
import { PanelBuilder as LinesBuilder } from "@grafana/grafana-foundation-sdk/timeseries";
import { type PanelSpec, rows } from "./queries.js";

const source: common.DataSourceRef = { type: "prometheus", uid: "${datasource}" };
const statHeight = 4;
const graphHeight = 8;

/** The dashboard as Grafana imports it. */
export function buildDashboard(): Dashboard {
  const dashboard = new DashboardBuilder("Lockstep")
    .uid("lockstep")
    .description("A fine-tuning run: learning, throughput, network, devices, faults.")
    .tags(["lockstep"])
    .timezone("browser")
    .tooltip(DashboardCursorSync.Crosshair)
    .refresh("10s")
    .time({ from: "now-1h", to: "now" })
    .withVariable(
      new DatasourceVariableBuilder("datasource").label("Data source").type("prometheus"),
    )
    .withVariable(labelVariable("job", "Job", '{__name__=~"lockstep_.+"}'))
    .withVariable(labelVariable("instance", "Instance", '{__name__=~"lockstep_.+", job=~"$job"}'));
  let id = 1;
  for (const row of rows) {
    dashboard.withRow(new RowBuilder(row.title).id(id++));
    for (const panel of row.panels) {
      dashboard.withPanel((panel.kind === "stat" ? stat(panel) : graph(panel)).id(id++));
    }
  }
  return dashboard.build();
}

function labelVariable(name: string, label: string, series: string): QueryVariableBuilder {
  const query = `label_values(${series}, ${name})`;
  return new QueryVariableBuilder(name)
    .label(label)
    .datasource(source)
    .query({ query, refId: `${name}-values` })
    .definition(query)
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue(".*")
    .current({ selected: true, text: ["All"], value: ["$__all"] });
}

function targets(panel: PanelSpec): DataqueryBuilder[] {
  return panel.queries.map(({ expr, legend }, index) =>
    new DataqueryBuilder()
      .datasource(source)
      .refId(String.fromCharCode("A".charCodeAt(0) + index))
      .expr(expr)
      .legendFormat(legend),
  );
}

function stat(panel: PanelSpec): StatBuilder {
  const named = panel.queries.some(({ legend }) => legend.includes("{{"));
  return new StatBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(source)
    .unit(panel.unit)
    .span(panel.width)
    .height(statHeight)
    .graphMode(common.BigValueGraphMode.None)
    .textMode(
      panel.title === "Version"
        ? common.BigValueTextMode.Name
        : named
          ? common.BigValueTextMode.ValueAndName
          : common.BigValueTextMode.Value,
    )
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(["lastNotNull"]))
    .targets(targets(panel));
}

function graph(panel: PanelSpec): LinesBuilder {
  const builder = new LinesBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(source)
    .unit(panel.unit)
    .span(panel.width)
    .height(graphHeight)
    .lineWidth(1)
    .fillOpacity(panel.kind === "stacked" ? 20 : 0)
    .showPoints(common.VisibilityMode.Auto)
    .legend(
      new common.VizLegendOptionsBuilder()
        .displayMode(common.LegendDisplayMode.List)
        .placement(common.LegendPlacement.Bottom)
        .showLegend(true)
        .calcs(["lastNotNull"]),
    )
    .tooltip(
      new common.VizTooltipOptionsBuilder()
        .mode(common.TooltipDisplayMode.Multi)
        .sort(common.SortOrder.Descending),
    )
    .targets(targets(panel));
  if (panel.min !== undefined) builder.min(panel.min);
  if (panel.max !== undefined) builder.max(panel.max);
  if (panel.kind === "stacked") {
    builder.stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal));
  }
  return builder;
}
