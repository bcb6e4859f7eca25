import type { CoordinatorOptions } from "#coordinator/options";
import { startRemoteShards } from "#coordinator/reducer/remote-shard";
import type { ReducerMessage } from "#run/reducers";
import { logTail, Supervisor } from "#run/supervisor";

const timeoutMs = 60_000;

/** Shards in `lockstep reducer` processes of this machine, which end with this process. */
export async function startReducers(
  numReducers: number,
  logDirectory: string,
): Promise<NonNullable<CoordinatorOptions["startShard"]>> {
  const addresses: string[] = [];
  await new Promise<void>((resolve, reject) => {
    const supervisor = new Supervisor({
      ...{ role: "reducer", numWorkers: numReducers, logDirectory, maxRestarts: 0 },
      ownArgs: () => ["--listen", "127.0.0.1:0"],
      workerArgs: ["--metrics-port", "null", "--idle-timeout-ms", "0"],
      environment: () => ({}),
      onMessage: (index, message) => {
        addresses[index] = (message as ReducerMessage).address;
        if (addresses.filter(Boolean).length === numReducers) resolve();
      },
      onExit: ({ reason, logFile }) =>
        void logTail(logFile).then((lines) =>
          reject(new Error(`a reducer ended (${reason}): ${lines.join("\n")}`)),
        ),
      onExhausted: () => {},
      onLogFailure: () => {},
    });
    process.once("exit", () => supervisor.killAll());
    supervisor.start();
  });
  const note = (line: string): void => void process.stderr.write(`${line}\n`);
  return startRemoteShards(addresses, { secret: "of the benchmark", timeoutMs, note });
}
