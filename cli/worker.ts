import { pathToFileURL } from "node:url";
import { resolve } from "node:path";
import { hostPort, splitAddress } from "#lib/core/address";
import { engineEnvironment } from "#lib/core/engine-environment";
import { installedEngine } from "#lib/graph/binding";
import { loadWireSecurity } from "#lib/wire/security";
import { startWorkerHttp } from "#worker/http";
import { WorkerMetrics } from "#worker/metrics";
import { precisionAdvice } from "#worker/precision-advice";
import { openDeviceTelemetry } from "#worker/telemetry";
import { runWorker } from "#worker/worker";
import { readCommandLine, usageOf } from "./command-line.js";
import type { ConsoleFlags } from "./console.js";
import { memberOptions, memberSettings, pathOf } from "./member-options.js";
import { httpSecurity } from "#run/http-security";
import { memoryLines } from "#run/memory-lines";
import { supervisedIncarnation } from "#run/own-workers";
import { counted } from "#lib/core/format";
import {
  exitCodes,
  isSupervised,
  onStopSignals,
  type StopSignal,
  stopSignals,
  userSignals,
} from "./stop-signals.js";
import type { WorkerMessage } from "#run/supervisor";

/** The run was stopped and may go on: EX_TEMPFAIL of sysexits.h, so that a job system starts it again. */
const interruptedExitCode = 75;

/** `lockstep worker`. Returns the exit code. */
export async function workerCommand(
  args: readonly string[],
  { jsonLogs }: ConsoleFlags,
): Promise<number> {
  const options = parse(args);
  const telemetry = await openDeviceTelemetry({
    useCpu: options.useCpu,
    visibleDevices: process.env.CUDA_VISIBLE_DEVICES,
    ...(options.deviceThreads === undefined ? {} : { cpuThreads: options.deviceThreads }),
  });
  const metrics = new WorkerMetrics(telemetry, () => performance.now());
  const log = (text: string): void => {
    process.stdout.write(`${new Date().toISOString()} ${text}\n`);
  };
  for (const line of options.withoutEffect) log(`warning: ${line}`);
  if (jsonLogs) log("warning: --json-logs has no effect: a worker's lines are text");
  const stop = new AbortController();
  const drain = new AbortController();
  const signals = isSupervised()
    ? leaveSignals(log)
    : onStopSignals({
        onFirst: () => {
          log(
            `leaving: the group in work is finished and sent first, within ${options.drainGraceMs / 1000} s, or given back; a second signal exits at once`,
          );
          drain.abort();
          return true;
        },
        onSecond: () => {},
        onUserSignal: (signal) => {
          log(`${signal} has no effect on a worker: the coordinator saves`);
          return true;
        },
      });
  // A supervisor that is gone cannot stop this worker any more.
  process.once("disconnect", () => stop.abort());
  if (process.send !== undefined && !process.connected) stop.abort();
  const http =
    options.metricsPort === null
      ? undefined
      : await startWorkerHttp({
          host: options.metricsHost,
          port: options.metricsPort,
          metrics,
          insecure: options.security.insecure,
          withoutTls: options.httpWithoutTls,
          onTlsNews: log,
          ...(await httpSecurity(options.httpFiles, (line) => log(`warning: ${line}`))),
        });
  try {
    if (http !== undefined) {
      const address = hostPort(options.metricsHost, http.port);
      const scheme = options.httpFiles.tlsCertFile === null ? "http" : "https";
      log(`metrics ${scheme}://${address}/metrics`);
      if (process.connected) {
        // A supervisor that went away in between is noticed by its disconnection.
        process.send?.({ type: "metrics", address } satisfies WorkerMessage, () => {});
      }
    }
    const deviceKind =
      options.engineModule === null
        ? `${telemetry.deviceKind}, ${installedEngine()}`
        : telemetry.deviceKind;
    log(`device ${deviceKind}`);
    for (const line of engineEnvironment(process.env).overruled) log(`warning: ${line}`);
    const { outcome, numGroups } = await runWorker({
      coordinatorAddress: options.coordinator,
      standbyAddresses: options.standbys,
      security: await loadWireSecurity(options.security, (line) => log(`warning: ${line}`)),
      name: options.name,
      ...(isSupervised() ? { incarnation: supervisedIncarnation() } : {}),
      deviceKind,
      deviceType: telemetry.deviceType,
      advice:
        options.engineModule === null
          ? precisionAdvice(telemetry, options.deviceThreads ?? 1)
          : {
              ...{ bf16: telemetry.hasBf16Products, fp16: telemetry.hasFp16Products },
              ...{ bf16Slowdown: undefined, fp16Slowdown: undefined },
            },
      readDevice: telemetry.read,
      signal: stop.signal,
      drain: drain.signal,
      drainGraceMs: options.drainGraceMs,
      ...(options.engineModule === null
        ? {}
        : { engineModule: pathToFileURL(resolve(options.engineModule)).href }),
      // The run of this machine ends its workers with itself, and starts others.
      returnTimeoutMs: isSupervised() ? 0 : options.returnTimeoutMs,
      ...(options.reconnectTimeoutMs === undefined
        ? {}
        : { reconnectTimeoutMs: options.reconnectTimeoutMs }),
      observer: {
        ...metrics.observer,
        registered: (workerId, address) => {
          metrics.observer.registered?.(workerId, address);
          log(`registered at ${address} as ${workerId}`);
        },
        engineCreated: (plannedBytes) => {
          if (plannedBytes === undefined) return;
          const { memoryTotalBytes } = telemetry.read();
          const { deviceType } = telemetry;
          const memory = { plannedBytes, memoryTotalBytes, deviceType };
          for (const line of memoryLines(memory)) log(line);
          if (process.connected) {
            process.send?.({ type: "memory", memory } satisfies WorkerMessage, () => {});
          }
        },
        awaitingReturn: (timeoutMs) =>
          log(
            `the run was stopped; its return to ${options.coordinator} is waited for, ${Math.round(timeoutMs / 1000)} s at most`,
          ),
        told: log,
        retrying: (error) =>
          log(`trying again: ${error instanceof Error ? error.message : String(error)}`),
      },
    });
    log(`${outcome} after ${counted(numGroups, "gradient group")}`);
    const received = signals.received();
    if (outcome === "interrupted" && !isSupervised()) return interruptedExitCode;
    return outcome === "left" && received !== undefined ? exitCodes[received] : 0;
  } finally {
    signals.remove();
    telemetry.close();
    await http?.server.close();
    if (process.connected) process.disconnect();
  }
}

/** A worker of a run of this machine: that run hears the signals too, and says when it is over. */
function leaveSignals(log: (text: string) => void): {
  readonly received: () => StopSignal | undefined;
  readonly remove: () => void;
} {
  const listener = (signal: NodeJS.Signals): void => log(`${signal} is left to the run's process`);
  const signals = [...stopSignals, ...userSignals];
  for (const signal of signals) process.on(signal, listener);
  return {
    received: () => undefined,
    remove: () => {
      for (const signal of signals) process.off(signal, listener);
    },
  };
}

function parse(args: readonly string[]) {
  const usage = usageOf("worker");
  const { values } = parseWorkerArgs(args, usage);
  const number = (name: string, text: string, limits: readonly [number, number]): number => {
    const value = Number(text);
    if (text !== "" && Number.isInteger(value) && value >= limits[0] && value <= limits[1]) {
      return value;
    }
    return usage(
      `--${name} must be a whole number from ${limits[0]} to ${limits[1]}, got "${text}"`,
    );
  };
  const given = values.coordinator ?? usage("--coordinator HOST:PORT is missing");
  const [coordinator = "", ...standbys] = given.split(",");
  for (const address of [coordinator, ...standbys]) {
    if (!/^(\[[0-9a-fA-F:]+\]|[^:,]+):\d{1,5}$/.test(address)) {
      usage(`--coordinator must be HOST:PORT, or several with commas between them, got "${given}"`);
    }
    const { port } = splitAddress(address);
    if (port < 1 || port > 65_535) {
      usage(`the port of --coordinator must be 1 to 65535, got ${port}`);
    }
  }
  const optional = (name: string, text: string | undefined, limits: readonly [number, number]) =>
    text === undefined ? undefined : number(name, text, limits);
  const member = memberSettings(values, (name, text) => number(name, text, [0, 65_535]));
  const tlsServerName = values["tls-server-name"];
  const isNamedInVain = tlsServerName !== undefined && values["tls-ca-file"] === undefined;
  return {
    coordinator,
    standbys,
    ...member,
    security: { ...member.security, tlsServerName },
    withoutEffect: [
      ...member.withoutEffect,
      ...(isNamedInVain
        ? ["--tls-server-name has no effect: without --tls-ca-file there is no TLS"]
        : []),
    ],
    name: values.name,
    useCpu: values["use-cpu"],
    deviceThreads: optional("device-threads", values["device-threads"], [1, 1024]),
    reconnectTimeoutMs: optional(
      "reconnect-timeout-ms",
      values["reconnect-timeout-ms"],
      [0, 86_400_000],
    ),
    drainGraceMs: number("drain-grace-ms", values["drain-grace-ms"], [0, 86_400_000]),
    returnTimeoutMs: number("return-timeout-ms", values["return-timeout-ms"], [0, 604_800_000]),
    engineModule: pathOf(values["engine-module"]) ?? null,
  };
}

function parseWorkerArgs(args: readonly string[], fail: (problem: string) => never) {
  const dashed = args.map((argument) =>
    argument.startsWith("--")
      ? argument.replace(/^--[^=]+/, (flag) => flag.replaceAll("_", "-"))
      : argument,
  );
  const options = {
    ...memberOptions,
    coordinator: { type: "string" },
    name: { type: "string", default: "" },
    "use-cpu": { type: "boolean", default: false },
    "device-threads": { type: "string" },
    "reconnect-timeout-ms": { type: "string" },
    // Less than the 30 s after which Kubernetes kills a pod.
    "drain-grace-ms": { type: "string", default: "25000" },
    "return-timeout-ms": { type: "string", default: "600000" },
    "tls-server-name": { type: "string" },
    "engine-module": { type: "string" },
  } as const;
  return readCommandLine(dashed, options, fail, { allowPositionals: false });
}
