import type { ResolvedConfig } from "#lib/config/index";
import type { LockstepError } from "#lib/core/errors/index";
import type { PreparedRun } from "./prepared-run.js";
import type { StartReducers } from "./reducers.js";
import type { CoordinatorPorts } from "./supervised-processes.js";
import type { Supervisor, WorkerExit } from "./supervisor.js";

/** A run's own workers. */
export type OwnWorkers = Pick<Supervisor, "stopRestarting" | "progressed" | "stop" | "killAll">;

export interface WorkersOptions {
  /** host:port of the coordinator. */
  readonly controlAddress: string;
  /** A line for a person. */
  readonly note: (text: string) => void;
  /** The run, once it is known. */
  readonly prepared: () => PreparedRun | undefined;
  readonly onExit: (exit: WorkerExit) => void;
  /** No worker is left and none is started again. */
  readonly onExhausted: (error: LockstepError) => void;
}

/** Starts what a configuration asks for on this machine. */
export interface OwnProcesses {
  readonly startWorkers: (config: ResolvedConfig, options: WorkersOptions) => Promise<OwnWorkers>;
  readonly startReducers: StartReducers;
  /** Whether another process has started them, and starts a coordinator again that dies. @default false */
  readonly outliveCoordinator?: boolean;
  /** Where an earlier coordinator listened. */
  readonly ports?: CoordinatorPorts;
  /** Called when a port is known. */
  readonly listensAt?: (ports: CoordinatorPorts) => void;
}
