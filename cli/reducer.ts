import { hostPort, splitAddress } from "#lib/core/address";
import { expandHome } from "#lib/core/home-path";
import { loadWireSecurity } from "#lib/wire/security";
import { startReducerHttp } from "#reducer/http";
import { startReducer } from "#reducer/start-reducer";
import { httpSecurity } from "#run/http-security";
import type { ReducerMessage } from "#run/reducers";
import { readCommandLine, usageOf } from "./command-line.js";
import type { ConsoleFlags } from "./console.js";
import {
  exitCodes,
  isSupervised,
  type StopSignal,
  stopSignals,
  userSignals,
} from "./stop-signals.js";

/** Nobody came back to the run: EX_TEMPFAIL of sysexits.h, so that a job system starts it again. */
const idleExitCode = 75;

/** `lockstep reducer`. Returns the exit code. */
export async function reducerCommand(
  args: readonly string[],
  { jsonLogs }: ConsoleFlags,
): Promise<number> {
  const options = parse(args);
  const log = (text: string): void => {
    process.stdout.write(`${new Date().toISOString()} ${text}\n`);
  };
  for (const line of options.withoutEffect) log(`warning: ${line}`);
  if (jsonLogs) log("warning: --json-logs has no effect: a reducer's lines are text");
  const { host, port } = splitAddress(options.listen);
  const reducer = await startReducer({
    ...{ listenHost: host, listenPort: port, idleTimeoutMs: options.idleTimeoutMs, log },
    security: await loadWireSecurity(options.security, (line) => log(`warning: ${line}`)),
  });
  const signalled = untilSignal(log);
  try {
    const http =
      options.metricsPort === null
        ? undefined
        : await startReducerHttp({
            host: options.metricsHost,
            port: options.metricsPort,
            registry: reducer.metrics.registry,
            isReady: () => true,
            insecure: options.security.insecure,
            withoutTls: options.httpWithoutTls,
            onTlsNews: log,
            ...(await httpSecurity(options.httpFiles, (line) => log(`warning: ${line}`))),
          });
    try {
      if (http !== undefined) {
        const scheme = options.httpFiles.tlsCertFile === null ? "http" : "https";
        log(`metrics ${scheme}://${hostPort(options.metricsHost, http.port)}/metrics`);
      }
      const address = hostPort(host, reducer.port);
      log(`listens at ${address} for a coordinator`);
      if (process.connected) {
        const metrics = http === undefined ? null : hostPort(options.metricsHost, http.port);
        process.send?.({ type: "listening", address, metrics } satisfies ReducerMessage, () => {});
      }
      const end = await Promise.race([reducer.ended, signalled.stopped]);
      if (end === "idle") {
        log(`no coordinator was heard of for ${Math.round(options.idleTimeoutMs / 1000)} s`);
        return idleExitCode;
      }
      return end === "finished" || end === "disconnected" ? 0 : exitCodes[end];
    } finally {
      await http?.server.close();
    }
  } finally {
    signalled.remove();
    await reducer.close();
    if (process.connected) process.disconnect();
  }
}

/**
 * Until the process is to end. What it has is in no other place: a signal ends it at once, and the run goes back to its
 * checkpoint. One that a run of this machine started leaves signals to that run.
 */
function untilSignal(log: (text: string) => void): {
  readonly stopped: Promise<StopSignal | "disconnected">;
  readonly remove: () => void;
} {
  const listeners = new Map<NodeJS.Signals, () => void>();
  const stopped = new Promise<StopSignal | "disconnected">((resolve) => {
    process.once("disconnect", () => resolve("disconnected"));
    if (process.send !== undefined && !process.connected) resolve("disconnected");
    for (const signal of stopSignals) {
      listeners.set(signal, () => {
        log(isSupervised() ? `${signal} is left to the run's process` : `ends: ${signal}`);
        if (!isSupervised()) resolve(signal);
      });
    }
  });
  for (const signal of userSignals) {
    listeners.set(signal, () => log(`${signal} has no effect on a reducer: the coordinator saves`));
  }
  for (const [signal, listener] of listeners) process.on(signal, listener);
  return {
    stopped,
    remove: () => {
      for (const [signal, listener] of listeners) process.off(signal, listener);
    },
  };
}

function parse(args: readonly string[]) {
  const fail = usageOf("reducer");
  const { values } = parseReducerArgs(args, fail);
  const number = (name: string, text: string, max: number): number => {
    const value = Number(text);
    if (text !== "" && Number.isInteger(value) && value >= 0 && value <= max) return value;
    return fail(`--${name} must be a whole number from 0 to ${max}, got "${text}"`);
  };
  const listen = values.listen ?? fail("--listen HOST:PORT is missing");
  if (!/^(\[[0-9a-fA-F:]+\]|[^:]+):\d{1,5}$/.test(listen) || splitAddress(listen).port > 65_535) {
    fail(`--listen must be HOST:PORT, got "${listen}"`);
  }
  const path = (given: string | undefined): string | undefined =>
    given === undefined ? undefined : expandHome(given);
  const metricsPort = values["metrics-port"];
  return {
    listen,
    withoutEffect: flagsWithoutEffect(values),
    metricsHost: values["metrics-host"],
    metricsPort: metricsPort === "null" ? null : number("metrics-port", metricsPort, 65_535),
    idleTimeoutMs: number("idle-timeout-ms", values["idle-timeout-ms"], 604_800_000),
    httpFiles: {
      tokenFile: path(values["http-token-file"]) ?? null,
      tlsCertFile: path(values["http-tls-cert-file"]) ?? null,
      tlsKeyFile: path(values["http-tls-key-file"]) ?? null,
    },
    httpWithoutTls: values["http-without-tls"],
    security: {
      joinTokenFile: path(values["join-token-file"]),
      tlsCaFile: path(values["tls-ca-file"]),
      tlsCertFile: path(values["tls-cert-file"]),
      tlsKeyFile: path(values["tls-key-file"]),
      insecure: values.insecure,
    },
  };
}

/** A line for each flag that says how to protect what is not there. */
function flagsWithoutEffect(values: ReturnType<typeof parseReducerArgs>["values"]): string[] {
  if (values["metrics-port"] !== "null") return [];
  const ofHttp = [
    ...(["http-token-file", "http-tls-cert-file", "http-tls-key-file"] as const),
    "http-without-tls",
  ] as const;
  return ofHttp
    .filter((name) => values[name] !== undefined && values[name] !== false)
    .map((name) => `--${name} has no effect: --metrics-port is null`);
}

function parseReducerArgs(args: readonly string[], fail: (problem: string) => never) {
  const options = {
    listen: { type: "string" },
    "metrics-host": { type: "string", default: "127.0.0.1" },
    "metrics-port": { type: "string", default: "0" },
    "idle-timeout-ms": { type: "string", default: "600000" },
    "join-token-file": { type: "string" },
    "tls-ca-file": { type: "string" },
    "tls-cert-file": { type: "string" },
    "tls-key-file": { type: "string" },
    "http-token-file": { type: "string" },
    "http-tls-cert-file": { type: "string" },
    "http-tls-key-file": { type: "string" },
    "http-without-tls": { type: "boolean", default: false },
    insecure: { type: "boolean", default: false },
  } as const;
  return readCommandLine(args, options, fail, { allowPositionals: false });
}
