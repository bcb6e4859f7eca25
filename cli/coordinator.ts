import { loadConfig } from "#lib/config/index";
import { startCoordinator } from "#run/cluster-run";
import { type ConsoleFlags, openConsole } from "./console.js";
import { listenForRunSignals } from "./run-signals.js";
import { exitCodes } from "./stop-signals.js";

/** `lockstep coordinator`. Returns the exit code. */
export async function coordinatorCommand(
  args: readonly string[],
  flags: ConsoleFlags,
): Promise<number> {
  const loaded = await loadConfig(args, "coordinator");
  const run = startCoordinator(loaded.config);
  const display = openConsole(run, loaded, flags);
  const signals = listenForRunSignals({ config: loaded.config, display, run });
  try {
    const { outcome } = await run.outcome;
    const received = signals.received();
    // After the last step too: its evaluation may be left to whoever is started again.
    if (received !== undefined) return exitCodes[received];
    // Somebody stopped the run from elsewhere.
    return outcome === "finished" ? 0 : exitCodes.SIGINT;
  } finally {
    signals.remove();
    display.close();
  }
}
