import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "./ports.js";
import { toolPath } from "./tools.js";

/** An endpoint to scrape. */
export interface ScrapeTarget {
  /** HOST:PORT; the path is /metrics. */
  readonly address: string;
  /** The value of the label `job`. */
  readonly job: string;
}

interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A real Prometheus server with a data directory of its own. */
interface PrometheusServer {
  readonly url: string;
  /** An instant query. @param atSeconds since the epoch, now by default @throws when Prometheus refuses the expression. */
  query(expr: string, atSeconds?: number): Promise<readonly Sample[]>;
  /** Resolves once every target has been scraped successfully this many times from now. */
  scrapes(count: number, timeoutMs?: number): Promise<void>;
  close(): Promise<void>;
}

/** Polls between a server's states; Prometheus offers no event for them. */
const pollMs = 50;
const startTimeoutMs = 30_000;
const stopTimeoutMs = 10_000;

/**
 * Starts Prometheus on loopback and scrapes the targets.
 *
 * @param ruleFiles absolute paths of rule files to load and evaluate
 */
export async function startPrometheus(options: {
  readonly targets: readonly ScrapeTarget[];
  readonly scrapeIntervalMs: number;
  readonly ruleFiles?: readonly string[];
}): Promise<PrometheusServer> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-prometheus-"));
  const interval = `${options.scrapeIntervalMs}ms`;
  const jobs = [...new Set(options.targets.map(({ job }) => job))];
  // JSON is YAML.
  const config = {
    global: {
      scrape_interval: interval,
      scrape_timeout: interval,
      evaluation_interval: interval,
    },
    rule_files: options.ruleFiles ?? [],
    scrape_configs: jobs.map((job) => ({
      job_name: job,
      static_configs: [
        { targets: options.targets.filter((t) => t.job === job).map((t) => t.address) },
      ],
    })),
  };
  const configFile = join(directory, "prometheus.yaml");
  await writeFile(configFile, JSON.stringify(config));
  const port = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const child = spawn(
    toolPath("prometheus"),
    [
      `--config.file=${configFile}`,
      `--storage.tsdb.path=${join(directory, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--log.level=warn",
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      log = (log + chunk.toString()).slice(-10_000);
    });
  }
  let exited = false;
  const exit = once(child, "exit").then(() => {
    exited = true;
  });
  const check = (): void => {
    if (exited) throw new Error(`Prometheus ended:\n${log}`);
  };
  const close = async (): Promise<void> => {
    if (!exited) {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
      await exit;
      clearTimeout(timer);
    }
    await rm(directory, { recursive: true, force: true });
  };

  const query = async (expr: string, atSeconds?: number): Promise<readonly Sample[]> => {
    const body = new URLSearchParams({ query: expr });
    if (atSeconds !== undefined) body.set("time", `${atSeconds}`);
    const response = await fetch(`${url}/api/v1/query`, { method: "POST", body });
    return parseSamples(expr, await response.json());
  };

  const scrapes = async (count: number, timeoutMs = startTimeoutMs): Promise<void> => {
    const since = Date.now() / 1000;
    // `up` has one sample a scrape; the range reaches back a little further than the start.
    await until(timeoutMs, `${count} scrapes of each target`, async () => {
      check();
      const window = `${Math.ceil((Date.now() / 1000 - since) * 1000) + 1}ms`;
      const good = await query(`sum_over_time(up[${window}])`);
      return good.length === options.targets.length && good.every(({ value }) => value >= count);
    });
  };

  try {
    await until(startTimeoutMs, "Prometheus to be ready", async () => {
      check();
      const response = await fetch(`${url}/-/ready`).catch(() => null);
      return response?.ok === true;
    });
  } catch (error) {
    await close();
    throw error;
  }
  return { url, query, scrapes, close };
}

export async function until(
  timeoutMs: number,
  what: string,
  condition: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Waited ${timeoutMs} ms for ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

interface QueryAnswer {
  readonly status: string;
  readonly error?: string;
  readonly data?: {
    readonly resultType: string;
    readonly result: readonly {
      readonly metric: Record<string, string>;
      readonly value: [number, string];
    }[];
  };
}

function parseSamples(expr: string, answer: unknown): readonly Sample[] {
  // The shape is Prometheus' HTTP API v1.
  const { status, error, data } = answer as QueryAnswer;
  if (status !== "success" || data?.resultType !== "vector") {
    throw new Error(`Prometheus refused ${expr}: ${error ?? data?.resultType}`);
  }
  return data.result.map(({ metric, value }) => ({
    labels: metric,
    // Prometheus writes infinities as +Inf and -Inf.
    value: Number(value[1].replace("Inf", "Infinity")),
  }));
}
