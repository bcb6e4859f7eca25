import { registerBulkService } from "#lib/wire/bulk-server";
import { GrpcServer } from "#lib/wire/grpc-server";
import { maxControlMessageBytes } from "#lib/wire/limits";
import type { ShardNotice } from "#lib/wire/reducer-messages";
import { registerReducerService } from "#lib/wire/reducer-server";
import type { WireSecurity } from "#lib/wire/security";
import { ReducerMetrics } from "./metrics.js";
import { ReducerProcess } from "./reducer-process.js";

interface ReducerOptions {
  readonly listenHost: string;
  /** 0 takes any free port. */
  readonly listenPort: number;
  readonly security: WireSecurity;
  /** How long a process that has a shard hears of no coordinator before it ends; 0: for ever. */
  readonly idleTimeoutMs: number;
  /** A line for a person. */
  readonly log: (text: string) => void;
}

/** Why a reducer ended: its run is over, or nobody asked for it any more. */
type ReducerEnd = "finished" | "idle";

export interface RunningReducer {
  readonly port: number;
  readonly metrics: ReducerMetrics;
  /** Whether it has weights. */
  readonly isLoaded: () => boolean;
  readonly ended: Promise<ReducerEnd>;
  readonly close: () => Promise<void>;
}

const idleCheckMs = 1_000;

/**
 * Listens for a coordinator, which gives it a shard, and for the workers that this one tells of; all at one port.
 *
 * @throws E_INSECURE_BIND, E_PORT_IN_USE, E_LISTEN_FAILED
 */
export async function startReducer(options: ReducerOptions): Promise<RunningReducer> {
  const { listenHost, listenPort, security, idleTimeoutMs, log } = options;
  let end = (_how: ReducerEnd): void => {};
  const ended = new Promise<ReducerEnd>((resolve) => {
    end = resolve;
  });
  const metrics = new ReducerMetrics(() => reducer.status);
  const reducer = new ReducerProcess({
    security,
    log,
    onFinished: () => end("finished"),
    onNotice: (notice) => metrics.happened(notice),
    onTransferred: (direction, payloadBytes) => metrics.transferred(direction, payloadBytes),
  });
  const notify = (notice: ShardNotice): void => reducer.notify(notice);
  const server = new GrpcServer({
    security,
    maxReceiveBytes: maxControlMessageBytes,
    onHandled: (method, code, seconds) => notify({ type: "rpc", method, code, seconds }),
    onRefusedConnections: (reason, numConnections) =>
      notify({ type: "connectionsRefused", reason, numConnections }),
    onTlsNews: log,
  });
  registerBulkService(server, reducer);
  registerReducerService(server, reducer);
  const port = await server.listen(listenHost, listenPort);
  const idle = setInterval(() => {
    if (idleTimeoutMs > 0 && reducer.silentMs > idleTimeoutMs) end("idle");
  }, idleCheckMs);
  return {
    ...{ port, metrics, ended },
    isLoaded: () => reducer.status?.isLoaded === true,
    close: async () => {
      clearInterval(idle);
      await server.close();
    },
  };
}
