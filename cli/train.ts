import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { loadConfig, type ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { countGpus } from "#worker/telemetry";
import { type ConsoleFlags, openConsole } from "./console.js";
import { type HostedRun, publishFailure, startHost } from "#run/host";
import { memoryLines } from "#run/memory-lines";
import { metricsTargetsFile } from "#run/output-contents";
import { printable } from "#lib/core/terminal-text";
import { listenForRunSignals } from "./run-signals.js";
import { exitCodes } from "./stop-signals.js";
import { logDirectoryOf, logTail, Supervisor, type WorkerExit } from "#run/supervisor";

/** `lockstep train`: everything on one machine. Returns the exit code. */
export async function trainCommand(args: readonly string[], flags: ConsoleFlags): Promise<number> {
  const loaded = await loadConfig(args, "train");
  const { config } = loaded;
  const bus = new InProcessEventBus();
  const display = openConsole(bus, loaded, flags);
  let hosted: HostedRun | undefined;
  let supervisor: Supervisor | undefined;
  const signals = listenForRunSignals({
    config,
    display,
    hosted: () => hosted,
    onStop: () => supervisor?.stopRestarting(),
    onExit: () => supervisor?.killAll(),
  });
  const host = await startHost(config, bus, { hasOwnWorkers: true }).catch((error: unknown) => {
    display.close();
    throw error;
  });
  try {
    if (host.httpAddress !== undefined) {
      display.note(`Dashboard ${host.httpAddress}/  metrics ${host.httpAddress}/metrics`);
    }
    const controlAddress = await host.listen();
    const nothingLeft = await host.nothingLeft();
    if (nothingLeft !== undefined) {
      display.note(nothingLeft);
      return 0;
    }
    const targets = new Map<number, string>();
    let isMemoryTold = false;
    supervisor = new Supervisor({
      numWorkers: config.workers,
      workerArgs: workerArguments(config, controlAddress),
      environment: await workerEnvironments(config),
      logDirectory: logDirectoryOf(config.output_dir),
      maxRestarts: config.max_worker_restarts,
      onExit: (exit) => {
        hosted?.coordinator.reportWorkerExit(exit.pid, exit.reason);
        void explainExit(exit, (line) => display.note(line));
      },
      onMetrics: (index, address) => {
        targets.set(index, address);
        void writeTargets(config.output_dir, targets).catch((error: unknown) =>
          display.note(`the list of metrics targets was not written: ${String(error)}`),
        );
      },
      onMemory: (need) => {
        if (isMemoryTold) return;
        isMemoryTold = true;
        const others = { numWorkers: config.workers, numParameters: hosted?.numParameters ?? 0 };
        for (const line of memoryLines(need, others)) display.note(line);
      },
      onExhausted: ({ restarts, reason, logFile }) =>
        host.fail(new LockstepError("E_WORKERS_EXHAUSTED", { restarts, reason, logFile })),
    });
    // Before the run is open: its precision may be for their device to decide.
    supervisor.start();
    hosted = await host.open();
    const outcome = await hosted.run();
    await supervisor.stop();
    const received = signals.received();
    if (received !== undefined) return exitCodes[received];
    return outcome.outcome === "finished" ? 0 : exitCodes.SIGINT;
  } catch (error) {
    publishFailure(bus, error);
    throw error;
  } finally {
    supervisor?.killAll();
    signals.remove();
    display.close();
    await host.close();
  }
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
    ...files.flatMap(([flag, value]) => (value === null ? [] : [flag, value])),
  ];
}

/** One GPU a worker, in turn; none is shown with use_cpu. */
async function workerEnvironments(
  config: ResolvedConfig,
): Promise<(index: number) => Record<string, string>> {
  const numGpus = config.use_cpu ? 0 : await countGpus();
  return (index) => {
    if (config.use_cpu) return { CUDA_VISIBLE_DEVICES: "" };
    return numGpus === 0 ? {} : { CUDA_VISIBLE_DEVICES: String(index % numGpus) };
  };
}

async function explainExit(exit: WorkerExit, note: (line: string) => void): Promise<void> {
  const next = exit.willRestart ? "it is started again" : "it is not started again";
  note(`worker-${exit.index + 1} ended (${exit.reason}); ${next}. The end of ${exit.logFile}:`);
  for (const line of await logTail(exit.logFile)) note(`  ${printable(line)}`);
}
