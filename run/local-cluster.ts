import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assertWritable } from "#lib/checkpoint/write-guard";
import type { ResolvedConfig } from "#lib/config/index";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { LockstepError } from "#lib/core/errors/index";
import { printable } from "#lib/core/terminal-text";
import { countGpus } from "#worker/telemetry";
import { type ClusterRun, openCluster } from "./cluster-run.js";
import type { WorkersOptions } from "./own-processes.js";
import { besideWorkers, memoryLines } from "./memory-lines.js";
import { metricsTargetsFile } from "./output-contents.js";
import { startedHere } from "./own-workers.js";
import { startReducers } from "./reducers.js";
import type { RunOptions } from "./run-handle.js";
import { logDirectoryOf, logTail, Supervisor, type WorkerExit } from "./supervisor.js";

/**
 * Runs a configuration on a coordinator in this process and worker processes of this machine, which end
 * with the run. A checkpoint is saved where it is stopped.
 */
export const startCluster = (config: ResolvedConfig, options: RunOptions = {}): ClusterRun =>
  openCluster(config, options, { startWorkers: startLocalWorkers, startReducers });

/** Starts a configuration's workers as processes of this machine. */
export async function startLocalWorkers(
  config: ResolvedConfig,
  { controlAddress, note, prepared, onExit, onExhausted }: WorkersOptions,
): Promise<Supervisor> {
  const targets = new Map<number, string>();
  let isMemoryTold = false;
  const supervisor = new Supervisor({
    numWorkers: config.workers,
    workerArgs: workerArguments(config, controlAddress),
    environment: await workerEnvironments(config),
    logDirectory: logDirectoryOf(config.output_dir),
    maxRestarts: config.max_worker_restarts,
    onExit: (exit) => {
      onExit(exit);
      void explainExit(exit, note);
    },
    onMetrics: (index, address) => {
      targets.set(index, address);
      void writeTargets(config.output_dir, targets).catch((error: unknown) =>
        note(`the list of metrics targets was not written: ${messageOf(error)}`),
      );
    },
    onMemory: (need) => {
      if (isMemoryTold) return;
      isMemoryTold = true;
      const others = besideWorkers(prepared(), config.workers);
      for (const line of memoryLines(need, others)) note(line);
    },
    onLogFailure: (logFile, error) => note(`warning: ${withoutLog(logFile, error)}`),
    onExhausted: ({ restarts, reason, logFile }) =>
      onExhausted(new LockstepError("E_WORKERS_EXHAUSTED", { restarts, reason, logFile })),
  });
  supervisor.start();
  return supervisor;
}

/** For Prometheus' file discovery: where each worker's metrics are. */
async function writeTargets(
  outputDir: string,
  targets: ReadonlyMap<number, string>,
): Promise<void> {
  const groups = [...targets].map(([index, address]) => ({
    targets: [address],
    labels: { process: `worker-${index + 1}` },
  }));
  assertWritable(outputDir);
  await writeFile(join(outputDir, metricsTargetsFile), `${JSON.stringify(groups, null, 2)}\n`);
}

function workerArguments(config: ResolvedConfig, controlAddress: string): string[] {
  const files: [string, string | null][] = [
    ["--tls-cert-file", config.tls_cert_file],
    ["--tls-key-file", config.tls_key_file],
    ["--tls-ca-file", config.tls_ca_file],
    ["--join-token-file", config.join_token_file],
    ["--http-token-file", config.http_token_file],
    ["--engine-module", config.engine_module],
  ];
  return [
    "--coordinator",
    controlAddress,
    "--device-threads",
    String(config.threads_per_worker),
    "--metrics-port",
    config.metrics_port === null ? "null" : "0",
    ...(config.use_cpu ? ["--use-cpu"] : []),
    ...(config.insecure ? ["--insecure"] : []),
    ...files.flatMap(([flag, value]) => (value === null ? [] : [flag, value])),
  ];
}

/** One GPU a worker, in turn; none is shown with use_cpu. */
async function workerEnvironments(
  config: ResolvedConfig,
): Promise<(index: number) => Record<string, string>> {
  const numGpus = config.use_cpu ? 0 : await countGpus();
  return (index) => {
    if (config.use_cpu) return { ...startedHere, CUDA_VISIBLE_DEVICES: "" };
    if (numGpus === 0) return startedHere;
    return { ...startedHere, CUDA_VISIBLE_DEVICES: String(index % numGpus) };
  };
}

async function explainExit(exit: WorkerExit, note: (line: string) => void): Promise<void> {
  const { index, reason, logFile, restarts, restartInMs } = exit;
  const next =
    restartInMs === undefined
      ? "it is not started again"
      : `it is started again in ${restartInMs / 1000} s${restarts === 0 ? "" : ` (restart ${restarts + 1} since it last finished a group)`}`;
  const ended = `worker-${index + 1} ended (${reason}); ${next}.`;
  try {
    const lines = await logTail(logFile);
    note(`${ended} The end of ${logFile}:`);
    for (const line of lines) note(`  ${printable(line)}`);
  } catch (error) {
    // Logs may be taken away while a run goes on.
    note(`${ended} Its log cannot be read: ${messageOf(error)}`);
  }
}

const withoutLog = (logFile: string, error: unknown): string =>
  `${logFile} is not written, and its worker runs without a log: ${messageOf(explainWriteError(error, logFile))}`;

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
