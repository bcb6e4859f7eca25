import { loadConfig, type ResolvedConfig } from "#lib/config/index";
import { isSupervisedCoordinator, supervisorsProcesses } from "#run/supervised-processes";
import { openCluster } from "#run/cluster-run";
import { startCluster } from "#run/local-cluster";
import { type ConsoleFlags, openConsole } from "./console.js";
import { listenForRunSignals } from "./run-signals.js";
import { supervisedTrain } from "./supervised-train.js";
import { exitCodes } from "./stop-signals.js";

/** Shards in processes outlive a coordinator, if that is a process too. An agent of a queue starts a run again itself. */
const isSupervisor = ({ reducer_processes }: ResolvedConfig): boolean =>
  reducer_processes > 0 &&
  !isSupervisedCoordinator() &&
  process.env["LOCKSTEP_AGENT"] === undefined;

/** `lockstep train`: everything on one machine. Returns the exit code. */
export async function trainCommand(args: readonly string[], flags: ConsoleFlags): Promise<number> {
  const loaded = await loadConfig(args, "train");
  if (isSupervisor(loaded.config)) {
    return supervisedTrain(loaded.config, args, flags);
  }
  const run = isSupervisedCoordinator()
    ? openCluster(loaded.config, {}, supervisorsProcesses())
    : startCluster(loaded.config);
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
