import type { ResolvedConfig } from "#lib/config/index";
import { RunSupervisor } from "#run/run-supervisor";
import { exitCodes, type StopSignal, stopSignals, userSignals } from "./stop-signals.js";
import type { ConsoleFlags } from "./console.js";
import { ignoresHangup } from "./hangup.js";

/**
 * Runs `lockstep train` with its coordinator in a process of its own, which shows the run, and which is started again
 * where it is killed. Returns the exit code.
 */
export async function supervisedTrain(
  config: ResolvedConfig,
  args: readonly string[],
  { jsonLogs, verbose }: ConsoleFlags,
): Promise<number> {
  const flags = [...(jsonLogs ? ["--json-logs"] : []), ...(verbose ? ["--verbose"] : [])];
  const supervisor = new RunSupervisor(config, ["train", ...args, ...flags], (text) => {
    if (!jsonLogs) process.stderr.write(`${text}\n`);
    else {
      const time = new Date().toISOString();
      process.stdout.write(`${JSON.stringify({ time, type: "note", text })}\n`);
    }
  });
  let received: StopSignal | undefined;
  const listeners = new Map<NodeJS.Signals, () => void>();
  for (const signal of stopSignals) {
    const isIgnored = signal === "SIGHUP" && ignoresHangup();
    listeners.set(signal, () => {
      if (isIgnored) return;
      received ??= signal;
      supervisor.signal(signal, true);
    });
  }
  for (const signal of userSignals) {
    listeners.set(signal, () => supervisor.signal(signal, config.user_signal === "stop"));
  }
  for (const [signal, listener] of listeners) process.on(signal, listener);
  try {
    const { code, signal } = await supervisor.run();
    if (code !== null) return code;
    return exitCodes[received ?? "SIGTERM"] ?? (signal === null ? 1 : exitCodes.SIGTERM);
  } finally {
    for (const [signal, listener] of listeners) process.off(signal, listener);
  }
}
