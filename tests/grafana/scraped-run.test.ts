import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { packageRoot } from "#lib/core/paths";
import { interpolate, metricNames, panelQueries } from "#tests/support/dashboard";
import { declaredMetrics, seriesNames } from "#tests/support/metric-names";
import { startPrometheus, until } from "#tests/support/prometheus";
import { runProgram } from "#tests/support/run-program";
import { startScriptedRun } from "#tests/support/scripted-run";
import { needs, toolPath } from "#tests/support/tools";

const rulesFile = join(packageRoot, "grafana", "prometheus", "rules.yaml");

/** Scrapes come four times a second. */
const seenWithinMs = 20_000;

/** What was scraped before this is stored by now: a scrape that takes longer than 0.25 s has failed. */
const settledSeconds = 1;

interface RuleFile {
  readonly groups: readonly { readonly rules: readonly Rule[] }[];
}
interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
}
const rules = (parse(readFileSync(rulesFile, "utf8")) as RuleFile).groups.flatMap(
  (group) => group.rules,
);

test("panels and rules name only metrics that the registries declare", async () => {
  const known = seriesNames(await declaredMetrics());
  const exprs = [...panelQueries().map(({ expr }) => expr), ...rules.map(({ expr }) => expr)];
  for (const expr of exprs) {
    // Recording rules are named level:metric:operations.
    for (const name of metricNames(expr.replace(/\b\w+:\w+:\w+\b/g, ""))) {
      assert.ok(known.has(name), `${name} in ${expr}`);
    }
  }
  assert.ok(!known.has("lockstep_training_lost"));
});

test("the name reader finds each metric of an expression", () => {
  assert.deepEqual(
    metricNames('sum(rate(lockstep_a_total{job="lockstep"}[1m])) / lockstep_b_seconds_sum'),
    ["lockstep_a_total", "lockstep_b_seconds_sum"],
  );
});

test("both endpoints pass promtool check metrics", needs("promtool"), async () => {
  const run = await startScriptedRun();
  try {
    for (const { address } of run.targets) {
      const text = await (await fetch(`http://${address}/metrics`)).text();
      const { code, stdout, stderr } = await runProgram(
        toolPath("promtool"),
        ["check", "metrics"],
        { input: text },
      );
      assert.equal(code, 0, stdout + stderr);
      assert.match(text, /^lockstep_build_info\{/m);
    }
    const bad = await runProgram(toolPath("promtool"), ["check", "metrics"], {
      input: "# TYPE trainingLoss gauge\ntrainingLoss 1\n",
    });
    assert.notEqual(bad.code, 0, "promtool accepts a camelCase name without help");
  } finally {
    await run.close();
  }
});

test("every panel and every recording shows data from a Prometheus that scraped a run", {
  ...needs("prometheus"),
  timeout: 120_000,
}, async () => {
  const run = await startScriptedRun();
  const prometheus = await startPrometheus({
    targets: run.targets,
    scrapeIntervalMs: 250,
    ruleFiles: [rulesFile],
  });
  try {
    await prometheus.scrapes(8);
    // A scrape that a busy machine fails ends all series of its target until the next one.
    const untilSeen = async (
      expr: string,
      isSeen: (value: number) => boolean,
      what: string,
    ): Promise<void> => {
      let samples: Awaited<ReturnType<typeof prometheus.query>> = [];
      await until(seenWithinMs, "data", async () => {
        samples = await prometheus.query(expr);
        return samples.length > 0 && samples.every(({ value }) => isSeen(value));
      }).catch(() => assert.fail(`${what}: ${expr} gives ${JSON.stringify(samples)}`));
    };
    for (const { panel, expr } of panelQueries()) {
      await untilSeen(interpolate(expr, { rateInterval: "10s" }), Number.isFinite, panel);
    }
    for (const { record } of rules) {
      if (record !== undefined) await untilSeen(record, (value) => value > 0, record);
    }

    // The variables choose: another job has no data.
    for (const { panel, expr } of panelQueries()) {
      const chosen = interpolate(expr, { rateInterval: "10s", job: "another-job" });
      assert.deepEqual(await prometheus.query(chosen), [], panel);
    }
    await assert.rejects(prometheus.query("sum by (le (up))"), /Prometheus refused/);
  } finally {
    await prometheus.close();
    await run.close();
  }
});

test("panels compute what they say", { ...needs("prometheus"), timeout: 120_000 }, async () => {
  const run = await startScriptedRun();
  const prometheus = await startPrometheus({ targets: run.targets, scrapeIntervalMs: 250 });
  const ask = async (panel: string, atSeconds: number): Promise<ReadonlyMap<string, number>> => {
    const queries = panelQueries().filter((query) => query.panel === panel);
    const values = new Map<string, number>();
    for (const { expr } of queries) {
      for (const { labels, value } of await prometheus.query(
        interpolate(expr, { rateInterval: "10s" }),
        atSeconds,
      )) {
        const { __name__: _, ...rest } = labels;
        values.set(Object.values(rest).join(" "), value);
      }
    }
    return values;
  };
  const near = (actual: number | undefined, expected: number, what: string): void => {
    assert.ok(actual !== undefined && Math.abs(actual / expected - 1) < 0.01, `${what}: ${actual}`);
  };
  try {
    await prometheus.scrapes(6);
    const panels = [
      ...["Share of time in synchronisation", "Memory used, share", "Utilisation"],
      ...["Device hours", "Workers by state", "Calls per second (QPS)"],
    ];
    let seen: readonly ReadonlyMap<string, number>[] = [];
    let steps = 0;
    // All of one moment, at which the last scrape of each target had succeeded.
    await until(seenWithinMs, "a moment of which every panel has data", async () => {
      const atSeconds = Date.now() / 1000 - settledSeconds;
      const stepsThen = async (): Promise<number> =>
        (await prometheus.query("lockstep_training_steps_total", atSeconds))[0]?.value ?? 0;
      const up = await prometheus.query("up", atSeconds);
      steps = await stepsThen();
      seen = await Promise.all(panels.map((panel) => ask(panel, atSeconds)));
      const isUp = up.length === run.targets.length && up.every(({ value }) => value === 1);
      // The same later: nothing of that moment was still to be stored.
      const isSettled = steps > 0 && (await stepsThen()) === steps;
      return isUp && isSettled && seen.every(({ size }) => size > 0);
    });
    const [share, memory, utilisation, hours, workers, qps] = seen;
    assert.ok(share && memory && utilisation && hours && workers && qps);
    // A step of the script takes 2 s, 0.5 s of them in synchronisation.
    near([...share.values()][0], 0.25, "share");
    near(memory.get("gpu worker-0"), 0.25, "memory");
    near(utilisation.get("cpu worker-1"), 0.75, "utilisation");
    // Two devices that coordinator and workers both report, each counted once; the script lets a
    // device age by 10 s, and loses a worker, with every step.
    const hour = (steps * 10) / 3600;
    assert.deepEqual(
      hours,
      new Map([
        ["cpu", hour],
        ["gpu", hour],
      ]),
    );
    const ofStates = ["computing", "sending", "lost"].map((state) => workers.get(state));
    assert.deepEqual(ofStates, [1, 1, steps]);
    assert.deepEqual([...qps.keys()].sort(), [
      "OK CompleteTask",
      "OK Heartbeat",
      "OK NextTask",
      "OK Register",
    ]);
  } finally {
    await prometheus.close();
    await run.close();
  }
});
