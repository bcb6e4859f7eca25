import type { ResolvedConfig } from "#lib/config/index";
import type { ClusterRun } from "#run/cluster-run";
import type { Display } from "./progress/display.js";
import { onStopSignals, type StopSignal } from "./stop-signals.js";

interface RunSignals {
  readonly received: () => StopSignal | undefined;
  readonly remove: () => void;
}

/**
 * What signals do to a run: a stop is an orderly one once the run is open, and SIGUSR1 and SIGUSR2 do what
 * `user_signal` says.
 */
export function listenForRunSignals(parts: {
  readonly config: Pick<ResolvedConfig, "user_signal">;
  readonly display: Display;
  readonly run: Pick<ClusterRun, "isOpen" | "requestStop" | "requestSave" | "killWorkers">;
}): RunSignals {
  const { config, display, run } = parts;
  endWithAgent();
  return onStopSignals({
    onFirst: (signal) => {
      if (!run.isOpen()) return false;
      const again = signal === "SIGINT" ? "Ctrl-C again" : "a second signal";
      display.setNotice(`Stopping after this step, then saving; ${again} exits at once`);
      run.requestStop();
      return true;
    },
    onSecond: () => {
      run.killWorkers();
      display.close();
    },
    onUserSignal: (signal) => {
      if (config.user_signal === "stop") return false;
      if (!run.isOpen()) display.note(`${signal}: nothing is trained yet that could be saved`);
      else if (run.requestSave()) {
        display.note(`${signal}: saving after this step, then going on`);
      }
      return true;
    },
  });
}

/** A run that an agent of a queue started ends with it, in order: the job is another agent's soon. */
function endWithAgent(): void {
  const agent = process.env["LOCKSTEP_AGENT"];
  if (agent === undefined) return;
  const end = (): boolean => process.kill(process.pid, "SIGTERM");
  // It may have gone while this process began; nobody else would end the run of a job that is cancelled then.
  if (agent !== String(process.ppid) || !process.connected) {
    end();
    return;
  }
  process.once("disconnect", end);
  // The channel alone must not keep the process.
  process.channel?.unref();
}
