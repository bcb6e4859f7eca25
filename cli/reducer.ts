import { hostPort, splitAddress } from "#lib/core/address";
import { loadWireSecurity } from "#lib/wire/security";
import { startReducerHttp } from "#reducer/http";
import { startReducer } from "#reducer/start-reducer";
import { httpSecurity } from "#run/http-security";
import type { ReducerMessage } from "#run/reducers";
import { readCommandLine, usageOf } from "./command-line.js";
import type { ConsoleFlags } from "./console.js";
import { memberOptions, memberSettings } from "./member-options.js";
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
  return {
    listen,
    ...memberSettings(values, (name, text) => number(name, text, 65_535)),
    idleTimeoutMs: number("idle-timeout-ms", values["idle-timeout-ms"], 604_800_000),
  };
}

function parseReducerArgs(args: readonly string[], fail: (problem: string) => never) {
  const options = {
    ...memberOptions,
    listen: { type: "string" },
    "idle-timeout-ms": { type: "string", default: "600000" },
  } as const;
  return readCommandLine(args, options, fail, { allowPositionals: false });
}
