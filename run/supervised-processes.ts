import { LockstepError } from "#lib/core/errors/index";
import type { OwnProcesses } from "./own-processes.js";
import type { WorkerExit } from "./supervisor.js";

/** Of a coordinator to the process that supervises its run. */
export type FromCoordinator =
  | { readonly type: "startReducers" }
  | { readonly type: "startWorkers"; readonly controlAddress: string }
  | { readonly type: "ports"; readonly ports: CoordinatorPorts }
  | { readonly type: "progressed"; readonly pid: number }
  | { readonly type: "stopRestarting" }
  | { readonly type: "stop" };

/** And back. */
export type ToCoordinator =
  | { readonly type: "reducers"; readonly addresses: readonly string[] }
  | { readonly type: "reducersFailed" | "workersFailed"; readonly message: string }
  | { readonly type: "workers" }
  | { readonly type: "workerExit"; readonly exit: WorkerExit }
  | { readonly type: "exhausted"; readonly details: Readonly<Record<string, unknown>> }
  | { readonly type: "note"; readonly text: string }
  | { readonly type: "stopped" };

/** Those of a coordinator's first life, which the next ones keep. */
export interface CoordinatorPorts {
  readonly control?: number;
  readonly http?: number;
}

const variable = "LOCKSTEP_COORDINATOR_OF";
const portsVariable = "LOCKSTEP_COORDINATOR_PORTS";

/** The environment of a coordinator that this process supervises. */
export const coordinatorOf = (
  pid: number,
  ports: CoordinatorPorts,
): Readonly<Record<string, string>> => ({
  [variable]: String(pid),
  [portsVariable]: JSON.stringify(ports),
});

/** Whether this process is a coordinator that the run's command supervises. */
export const isSupervisedCoordinator = (): boolean =>
  process.channel !== undefined && process.env[variable] === String(process.ppid);

/** The processes of a run whose supervisor started this one: they outlive it. */
export function supervisorsProcesses(): OwnProcesses {
  const listeners = new Set<(message: ToCoordinator) => void>();
  process.on("message", (message) => {
    for (const listener of listeners) listener(message as ToCoordinator);
  });
  // Whoever is left alone would hold the run, and nobody would end it.
  process.once("disconnect", () => process.exit(1));
  const send = (message: FromCoordinator): void => void process.send?.(message, () => {});
  // The channel keeps the process only while something is waited for: a run that is over ends at once.
  process.channel?.unref();
  let numAwaited = 0;
  const answered = async <T>(take: (message: ToCoordinator) => T | undefined): Promise<T> => {
    numAwaited += 1;
    process.channel?.ref();
    try {
      return await answerTo(take);
    } finally {
      numAwaited -= 1;
      if (numAwaited === 0) process.channel?.unref();
    }
  };
  const answerTo = <T>(take: (message: ToCoordinator) => T | undefined): Promise<T> =>
    new Promise((resolve, reject) => {
      const listener = (message: ToCoordinator): void => {
        try {
          const taken = take(message);
          if (taken === undefined) return;
          listeners.delete(listener);
          resolve(taken);
        } catch (error) {
          listeners.delete(listener);
          reject(error);
        }
      };
      listeners.add(listener);
    });
  const ports = JSON.parse(process.env[portsVariable] ?? "{}") as CoordinatorPorts;
  const notStarted = (program: string, problem: string): LockstepError =>
    new LockstepError("E_PROCESS_START", { program, problem });
  const stop = async (): Promise<void> => {
    const stopped = answered(({ type }) => (type === "stopped" ? true : undefined));
    send({ type: "stop" });
    await stopped;
  };
  return {
    outliveCoordinator: true,
    ports,
    listensAt: (taken) => send({ type: "ports", ports: taken }),
    startReducers: async (_config, { note }) => {
      listeners.add((message) => {
        if (message.type === "note") note(message.text);
      });
      const addresses = answered((message) => {
        if (message.type === "reducersFailed") throw notStarted("a reducer", message.message);
        return message.type === "reducers" ? message.addresses : undefined;
      });
      send({ type: "startReducers" });
      return { addresses: await addresses, stop: async () => {}, killAll: () => {} };
    },
    startWorkers: async (_config, { controlAddress, note, onExit, onExhausted }) => {
      listeners.add((message) => {
        if (message.type === "workerExit") onExit(message.exit);
        if (message.type === "note") note(message.text);
        if (message.type !== "exhausted") return;
        const { restarts, reason, logFile } = message.details;
        onExhausted(
          new LockstepError("E_WORKERS_EXHAUSTED", {
            ...{ restarts: Number(restarts), reason: String(reason), logFile: String(logFile) },
          }),
        );
      });
      const started = answered((message) => {
        if (message.type === "workersFailed") throw notStarted("a worker", message.message);
        return message.type === "workers" ? true : undefined;
      });
      send({ type: "startWorkers", controlAddress });
      await started;
      return {
        stopRestarting: () => send({ type: "stopRestarting" }),
        progressed: (pid) => send({ type: "progressed", pid }),
        stop,
        // The supervisor does, once this process has ended.
        killAll: () => {},
      };
    },
  };
}
