import type { ResolvedConfig } from "#lib/config/index";
import type { HostedRun } from "#run/host";
import type { Display } from "./progress/display.js";
import { onStopSignals, type StopSignal } from "./stop-signals.js";

export interface RunSignals {
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
  /** Undefined until the run is open. */
  readonly hosted: () => HostedRun | undefined;
  /** An orderly stop was asked for. */
  readonly onStop?: () => void;
  /** Last steps before the program exits at once; must not wait. */
  readonly onExit?: () => void;
}): RunSignals {
  const { config, display, hosted, onStop, onExit } = parts;
  return onStopSignals({
    onFirst: (signal) => {
      const run = hosted();
      if (run === undefined) return false;
      const again = signal === "SIGINT" ? "Ctrl-C again" : "a second signal";
      display.setNotice(`Stopping after this step, then saving; ${again} exits at once`);
      onStop?.();
      run.coordinator.requestStop();
      return true;
    },
    onSecond: () => {
      onExit?.();
      display.close();
    },
    onUserSignal: (signal) => {
      if (config.user_signal === "stop") return false;
      const run = hosted();
      if (run === undefined) display.note(`${signal}: nothing is trained yet that could be saved`);
      else if (run.coordinator.requestSave()) {
        display.note(`${signal}: saving after this step, then going on`);
      }
      return true;
    },
  });
}
