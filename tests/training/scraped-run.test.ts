import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { interpolate, panelQueries } from "#tests/support/dashboard";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { startPrometheus } from "#tests/support/prometheus";
import { runProgram } from "#tests/support/run-program";
import { createTinyJob } from "#tests/support/tiny-job";
import { needs, toolPath } from "#tests/support/tools";

/** Far more steps than the test waits for: it ends the run when it has seen enough. */
const endless = 1_000_000;

async function checkMetrics(address: string): Promise<void> {
  const text = await (await fetch(`http://${address}/metrics`)).text();
  const { code, stdout, stderr } = await runProgram(toolPath("promtool"), ["check", "metrics"], {
    input: text,
  });
  assert.equal(code, 0, `${address}: ${stdout}${stderr}`);
}

test("a run's endpoints pass promtool, and every panel shows data of a Prometheus that scraped it", {
  ...needs("prometheus"),
  timeout: 180_000,
}, async () => {
  const job = await createTinyJob({
    max_steps: endless,
    num_train_epochs: endless,
    eval_strategy: "steps",
    eval_steps: 20,
    save_strategy: "steps",
    save_steps: 20,
    save_total_limit: 1,
    metrics_port: 0,
  });
  let child: ChildProcess | undefined;
  let reached: () => void = () => {};
  let coordinator = "";
  const underWay = new Promise<void>((resolve) => {
    reached = resolve;
  });
  const running = lockstepCommand(
    ["train", job.configFile, "--json-logs"],
    join(job.directory, "cache"),
    (event, process) => {
      child = process;
      const { text } = event as { readonly text?: string };
      coordinator = /metrics http:\/\/([^/]+)\//.exec(text ?? "")?.[1] ?? coordinator;
      if (event.type === "checkpoint.saved") reached();
    },
  );
  let prometheus: Awaited<ReturnType<typeof startPrometheus>> | undefined;
  try {
    await Promise.race([
      underWay,
      running.then(({ stderr }) => assert.fail(`the run ended early: ${stderr}`)),
    ]);
    const workers = await workerAddresses(join(job.directory, "out"));
    for (const address of [coordinator, ...workers]) await checkMetrics(address);
    prometheus = await startPrometheus({
      targets: [coordinator, ...workers].map((address) => ({ address, job: "lockstep" })),
      scrapeIntervalMs: 500,
    });
    await prometheus.scrapes(8);
    const empty: string[] = [];
    for (const { panel, expr } of panelQueries()) {
      const samples = await prometheus.query(interpolate(expr, { rateInterval: "10s" }));
      if (samples.length === 0) empty.push(`${panel}: ${expr}`);
    }
    assert.deepEqual(empty, []);
  } finally {
    await prometheus?.close();
    child?.kill("SIGINT");
    const { code, stderr } = await running;
    await job.remove();
    assert.equal(code, 130, stderr);
  }
});

async function workerAddresses(outputDir: string): Promise<string[]> {
  const groups = JSON.parse(await readFile(join(outputDir, "prometheus-workers.json"), "utf8")) as {
    targets: string[];
  }[];
  return groups.flatMap(({ targets }) => targets);
}
