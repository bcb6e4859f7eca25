import { loadConfig } from "#lib/config/index";
import { startCluster } from "#run/local-cluster";
import { type ConsoleFlags, openConsole } from "./console.js";
import { listenForRunSignals } from "./run-signals.js";
import { exitCodes } from "./stop-signals.js";

/** `lockstep train`: everything on one machine. Returns the exit code. */
export async function trainCommand(args: readonly string[], flags: ConsoleFlags): Promise<number> {
  const loaded = await loadConfig(args, "train");
  const run = startCluster(loaded.config);
  const display = openConsole(run, loaded, flags);
  const signals = listenForRunSignals({ config: loaded.config, display, run });
  try {
    const { outcome } = await run.outcome;
    const received = signals.received();
    if (received !== undefined) return exitCodes[received];
    return outcome === "finished" ? 0 : exitCodes.SIGINT;
  } finally {
    signals.remove();
    display.close();
  }
}
