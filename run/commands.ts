import type { Coordinator } from "#coordinator/coordinator";
import type { PauseGate } from "#coordinator/pause-gate";
import { LockstepError } from "#lib/core/errors/index";
import type { RunAction } from "#lib/wire/nats/run-commands";

/** What a command acts on. */
export interface CommandedRun {
  readonly cluster: {
    /** Whether workers are let in. */
    readonly isOpen: boolean;
    readonly coordinator: Coordinator | undefined;
  };
  readonly pause: PauseGate;
  readonly requestStop: () => void;
  /** Tells whoever watches the run. */
  readonly note: (text: string) => void;
}

/**
 * Does what somebody tells a run.
 *
 * @returns the answer, a line for a person
 * @throws E_RUN_NOT_OPEN
 */
export async function carryOut(
  action: RunAction,
  { cluster: { isOpen, coordinator }, pause, requestStop, note }: CommandedRun,
): Promise<string> {
  if (!isOpen || coordinator === undefined) throw new LockstepError("E_RUN_NOT_OPEN", { action });
  const tell = (text: string): string => {
    note(`told to ${action}: ${text}`);
    return text;
  };
  switch (action) {
    case "pause":
      return (await pause.pause())
        ? tell("it waits after the step in progress, with its workers")
        : "it was told to pause before";
    case "resume":
      return (await pause.resume()) ? tell("it goes on") : "it is not paused";
    case "checkpoint":
      return coordinator.requestSave()
        ? tell("it saves a checkpoint after the step in progress")
        : "a checkpoint was asked for before";
    case "stop":
      requestStop();
      return tell("it finishes the step in progress, saves and ends");
  }
}
