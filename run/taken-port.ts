import { lookup } from "node:dns/promises";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import type { ResolvedConfig } from "#lib/config/index";
import { bareHost, hostPort, splitAddress } from "#lib/core/address";
import type { OwnProcesses } from "./own-processes.js";
import type { RunStart } from "./start.js";

type ListeningConfig = Pick<
  ResolvedConfig,
  "listen" | "reducers" | "reducer_processes" | "reducer_shards"
>;

/**
 * Says which ports one that stands by could not listen on: it opens them only once it leads, when nobody may be there
 * to read why it ended. They stay closed until then, so that whatever looks for the leader by them finds it.
 */
export async function tellTakenPorts(
  config: ListeningConfig,
  note: (text: string) => void,
): Promise<void> {
  const { host, port } = splitAddress(config.listen);
  if (port === 0) return;
  for (const own of portsOf(config, port)) {
    if (!(await isTaken(host, own))) continue;
    note(
      `warning: ${hostPort(host, own)} is in use by another program; this one cannot lead while it is`,
    );
  }
}

/**
 * A port of a coordinator before this one is waited for so long. The end of a connection can have it for a moment: who
 * calls an address at which nobody listens gets, once in some ten thousand calls, that very port for its own end.
 */
const formerPortWaitMs = 30_000;
const lookAgainMs = 200;

interface Waiting {
  readonly note: (text: string) => void;
  /** Nobody waits any more. */
  readonly signal?: AbortSignal;
}

/**
 * The port of a coordinator: that of the one before it, where members of its run look for this one, once nobody else
 * has it or those of its shards.
 *
 * @param own knows the ports of a coordinator whose place this one takes
 * @param start whether a run was left by its coordinator, which listened where this one is to
 */
export async function controlPort(
  config: ListeningConfig,
  own: Pick<OwnProcesses, "ports"> | undefined,
  start: Pick<RunStart, "left">,
  waiting: Waiting,
): Promise<number> {
  const { host, port: configured } = splitAddress(config.listen);
  const former = own?.ports?.control;
  const port = former ?? configured;
  if (former !== undefined || start.left !== undefined)
    await untilFree(host, portsOf(config, port), waiting);
  return port;
}

/** Waits a while for those of these ports that another program has, and says so. */
export async function untilFree(
  host: string,
  ports: readonly number[],
  { note, signal }: Waiting,
): Promise<void> {
  const giveUpAtMs = awakeMs() + formerPortWaitMs;
  for (const port of ports) {
    for (let isTold = false; port !== 0 && (await isTaken(host, port)); isTold = true) {
      if (signal?.aborted === true || awakeMs() > giveUpAtMs) return;
      if (!isTold) {
        const address = hostPort(host, port);
        const seconds = formerPortWaitMs / 1000;
        note(
          `warning: ${address}, where this run was, is in use by another program; it is waited for, ${seconds} s at most`,
        );
      }
      await delay(lookAgainMs, undefined, { signal }).catch(() => {});
    }
  }
}

/** Of a coordinator and of its shards where those are its threads. */
function portsOf(config: ListeningConfig, port: number): readonly number[] {
  const isAny = splitAddress(config.listen).port === 0;
  const areThreads = config.reducers === null && config.reducer_processes === 0;
  const numShards = areThreads && !isAny ? config.reducer_shards : 0;
  return Array.from({ length: 1 + numShards }, (_, index) => port + index);
}

/** Whatever else keeps a port from being listened on is told of by who does. */
async function isTaken(host: string, port: number): Promise<boolean> {
  const { address } = await lookup(bareHost(host)).catch(() => ({ address: undefined }));
  if (address === undefined) return false;
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "EADDRINUSE"));
    server.listen({ host: address, port }, () => server.close(() => resolve(false)));
  });
}
