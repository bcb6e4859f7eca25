import { addEventStreamMetrics } from "#coordinator/event-stream-metrics";
import { CoordinatorHttp } from "#coordinator/http";
import { CoordinatorMetrics } from "#coordinator/metrics";
import type { ResolvedConfig } from "#lib/config/index";
import { hostPort } from "#lib/core/address";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import type { OwnProcesses } from "./own-processes.js";
import { httpSecurity } from "./http-security.js";
import { untilFree } from "./taken-port.js";

/**
 * Serves a run's dashboard and metrics, and says where.
 *
 * @returns undefined where that is switched off, or the run was stopped
 * @throws E_INSECURE_HTTP, E_PORT_IN_USE, E_LISTEN_FAILED and what reading its files comes to
 */
export async function serveRunHttp(
  config: ResolvedConfig,
  bus: InProcessEventBus,
  run: {
    readonly isReady: () => boolean;
    readonly eventFigures: Parameters<typeof addEventStreamMetrics>[1];
    /** Knows the port of a coordinator before this one. */
    readonly own?: Pick<OwnProcesses, "ports" | "listensAt"> | undefined;
    /** That port is not waited for any more. */
    readonly signal: AbortSignal;
  },
): Promise<CoordinatorHttp | undefined> {
  const { metrics_host: host, metrics_port: configured, insecure } = config;
  if (configured === null) return undefined;
  const note = (text: string): void => bus.publish({ type: "note", text });
  const former = run.own?.ports?.http;
  if (former !== undefined) await untilFree(host, [former], { note, signal: run.signal });
  if (run.signal.aborted) return undefined;
  const port = former ?? configured;
  const files = {
    tokenFile: config.http_token_file,
    tlsCertFile: config.http_tls_cert_file,
    tlsKeyFile: config.http_tls_key_file,
  };
  const protection = await httpSecurity(files, (line) => note(`warning: ${line}`));
  const { registry } = new CoordinatorMetrics(bus);
  addEventStreamMetrics(registry, run.eventFigures);
  const server = new CoordinatorHttp({
    ...{ host, port, registry, bus, insecure, ...protection },
    withoutTls: config.http_without_tls,
    isReady: run.isReady,
    onTlsNews: note,
  });
  const taken = await server.listen();
  run.own?.listensAt?.({ http: taken });
  const scheme = protection.tls === undefined ? "http" : "https";
  const url = `${scheme}://${hostPort(host, taken)}`;
  note(`Dashboard ${url}/  metrics ${url}/metrics`);
  return server;
}
