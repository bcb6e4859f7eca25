import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { buildDashboard } from "#grafana/src/dashboard";
import { rows } from "#grafana/src/queries";
import { packageRoot } from "#lib/core/paths";
import { interpolate, panelQueries } from "#tests/support/dashboard";
import { runProgram } from "#tests/support/run-program";
import { needs, toolPath } from "#tests/support/tools";

const dashboardFile = join(packageRoot, "grafana", "dashboards", "lockstep.json");

test("the committed dashboard is what the generator builds", () => {
  const committed: unknown = JSON.parse(readFileSync(dashboardFile, "utf8"));
  const built: unknown = JSON.parse(JSON.stringify(buildDashboard()));
  assert.deepEqual(
    committed,
    built,
    "run: node dist/grafana/src/write-dashboard.js grafana/dashboards/lockstep.json",
  );
});

test("panels have ids and titles of their own, and lie beside one another", () => {
  const panels = buildDashboard().panels ?? [];
  const ids = panels.map(({ id }) => id);
  assert.ok(ids.every((id) => typeof id === "number" && id > 0));
  assert.equal(new Set(ids).size, ids.length);
  const titles = rows.flatMap((row) => row.panels.map(({ title }) => title));
  assert.equal(new Set(titles).size, titles.length);
  const taken = new Map<string, string>();
  for (const panel of panels) {
    if (!("gridPos" in panel) || panel.gridPos === undefined) assert.fail("a panel has no place");
    const { x, y, w, h } = panel.gridPos;
    assert.ok(x >= 0 && x + w <= 24, `${panel.title} is wider than the dashboard`);
    for (let column = x; column < x + w; column++) {
      for (let line = y; line < y + h; line++) {
        const cell = `${column},${line}`;
        assert.equal(taken.get(cell), undefined, `${panel.title} covers ${taken.get(cell)}`);
        taken.set(cell, panel.title ?? "");
      }
    }
  }
  for (const row of rows) {
    const widths = row.panels.reduce((sum, { width }) => sum + width, 0);
    assert.equal(widths % 24, 0, `row ${row.title} leaves a gap`);
  }
});

test("each thing that a person looks for has a panel", () => {
  const all = panelQueries()
    .map(({ expr }) => expr)
    .join("\n");
  for (const name of [
    "training_loss",
    "evaluation_loss",
    "training_gradient_norm",
    "training_learning_rate",
    "training_loss_scale",
    "training_skipped_steps_total",
    "training_tokens_per_second",
    "training_samples_per_second",
    "rpc_requests_total",
    "rpc_duration_seconds_bucket",
    "device_utilization_ratio",
    "device_memory_used_bytes",
    "workers_device_seconds_total",
    "refused_connections_total",
    "reducer_waiting_pushes",
    "step_duration_seconds_bucket",
    "sync_duration_seconds_bucket",
    "reducer_received_bytes_total",
    "reducer_sent_bytes_total",
    "reducer_shards{",
    "reducer_mirrors{",
    "reducer_mirror_comparison_seconds_total",
    "workers{",
    "worker_failures_total",
    "gradient_groups_requeued_total",
    "checkpoints_total",
  ]) {
    assert.ok(all.includes(`lockstep_${name}`), `no panel shows ${name}`);
  }
});

test("every query depends on the variables job and instance, and on the chosen data source", () => {
  for (const { panel, expr } of panelQueries()) {
    const selectors = expr.match(/lockstep_\w+(\{[^}]*\})?/g) ?? [];
    assert.notEqual(selectors.length, 0, panel);
    for (const selector of selectors) {
      assert.match(selector, /\{job=~"\$job", instance=~"\$instance"/, `${panel}: ${selector}`);
    }
  }
  const text = readFileSync(dashboardFile, "utf8");
  const uids = [...text.matchAll(/"uid":\s*"([^"]*)"/g)].map((match) => match[1]);
  assert.deepEqual(
    [...new Set(uids)].toSorted((a = "", b = "") => a.localeCompare(b)),
    ["${datasource}", "lockstep"],
  );
});

async function promtoolAccepts(exprs: readonly string[]): Promise<{ ok: boolean; output: string }> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-promql-"));
  try {
    const rules = exprs.map((expr, index) => ({ record: `panel_query:${index}`, expr }));
    const file = join(directory, "rules.yaml");
    await writeFile(file, JSON.stringify({ groups: [{ name: "panels", rules }] }));
    const { code, stdout, stderr } = await runProgram(toolPath("promtool"), [
      "check",
      "rules",
      file,
    ]);
    return { ok: code === 0, output: stdout + stderr };
  } finally {
    await rm(directory, { recursive: true });
  }
}

test("every query is PromQL, as Prometheus parses it", needs("promtool"), async () => {
  const exprs = panelQueries().map(({ expr }) => interpolate(expr, { rateInterval: "1m" }));
  assert.ok(exprs.length >= 30);
  const { ok, output } = await promtoolAccepts(exprs);
  assert.ok(ok, output);
  const broken = await promtoolAccepts(["sum by (le (rate(lockstep_training_steps_total[1m])))"]);
  assert.equal(broken.ok, false, "promtool accepts a broken expression");
});

test("rules are valid and do what their tests say", needs("promtool"), async () => {
  const cwd = join(packageRoot, "grafana", "prometheus");
  const check = await runProgram(toolPath("promtool"), ["check", "rules", "rules.yaml"], { cwd });
  assert.equal(check.code, 0, check.stdout + check.stderr);
  const run = await runProgram(toolPath("promtool"), ["test", "rules", "rules.test.yaml"], { cwd });
  assert.equal(run.code, 0, run.stdout + run.stderr);
});

test("every alert has a test", () => {
  const directory = join(packageRoot, "grafana", "prometheus");
  const rules = parse(readFileSync(join(directory, "rules.yaml"), "utf8")) as {
    groups: { rules: { alert?: string; record?: string }[] }[];
  };
  const tested = readFileSync(join(directory, "rules.test.yaml"), "utf8");
  for (const { alert } of rules.groups.flatMap((group) => group.rules)) {
    if (alert !== undefined) assert.match(tested, new RegExp(`alertname: ${alert}\\b`));
  }
});

test("scrape configurations are valid", needs("promtool"), async () => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-scrape-"));
  try {
    await writeFile(
      join(directory, "rules.yaml"),
      readFileSync(join(packageRoot, "grafana", "prometheus", "rules.yaml")),
    );
    // promtool wants the token's file to be there.
    await mkdir(join(directory, "secrets"));
    await writeFile(join(directory, "secrets", "lockstep-http-token"), "token");
    const authority = join(packageRoot, "tests", "fixtures", "tls", "ours-ca.pem");
    await copyFile(authority, join(directory, "secrets", "lockstep-ca.crt"));
    for (const name of ["prometheus.yaml", "prometheus-kubernetes.yaml"]) {
      const text = readFileSync(join(packageRoot, "grafana", "prometheus", name), "utf8");
      const config = parse(text, { merge: true }) as {
        scrape_configs: Record<string, unknown>[];
      };
      for (const scrape of config.scrape_configs) {
        // Debian builds Prometheus without the discovery of pods; the rest is checked all the same.
        if (scrape.kubernetes_sd_configs === undefined) continue;
        assert.deepEqual(scrape.kubernetes_sd_configs, [{ role: "pod" }]);
        delete scrape.kubernetes_sd_configs;
        scrape.static_configs = [{ targets: ["localhost:1"] }];
      }
      const file = join(directory, name);
      await writeFile(file, JSON.stringify(config));
      const { code, stdout, stderr } = await runProgram(toolPath("promtool"), [
        "check",
        "config",
        file,
      ]);
      assert.equal(code, 0, stdout + stderr);
    }
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("provisioning names the data source and the folder that it uses", () => {
  const provisioning = join(packageRoot, "grafana", "provisioning");
  const sources = parse(
    readFileSync(join(provisioning, "datasources", "prometheus.yaml"), "utf8"),
  ) as { apiVersion: number; datasources: { type: string; uid: string; url: string }[] };
  assert.equal(sources.apiVersion, 1);
  assert.deepEqual(
    sources.datasources.map(({ type }) => type),
    ["prometheus"],
  );
  const providers = parse(
    readFileSync(join(provisioning, "dashboards", "lockstep.yaml"), "utf8"),
  ) as { apiVersion: number; providers: { type: string; options: { path: string } }[] };
  assert.equal(providers.apiVersion, 1);
  assert.equal(providers.providers[0]?.type, "file");
});
