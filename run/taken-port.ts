import { lookup } from "node:dns/promises";
import { createServer } from "node:net";
import type { ResolvedConfig } from "#lib/config/index";
import { bareHost, hostPort, splitAddress } from "#lib/core/address";

/**
 * Says which ports one that stands by could not listen on: it opens them only once it leads, when nobody may be there
 * to read why it ended. They stay closed until then, so that whatever looks for the leader by them finds it.
 */
export async function tellTakenPorts(
  config: Pick<ResolvedConfig, "listen" | "reducers" | "reducer_shards">,
  note: (text: string) => void,
): Promise<void> {
  const { host, port } = splitAddress(config.listen);
  if (port === 0) return;
  const numPorts = 1 + (config.reducers === null ? config.reducer_shards : 0);
  for (let index = 0; index < numPorts; index++) {
    if (!(await isTaken(host, port + index))) continue;
    note(
      `warning: ${hostPort(host, port + index)} is in use by another program; this one cannot lead while it is`,
    );
  }
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
