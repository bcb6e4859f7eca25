import type { FastifyInstance } from "fastify";
import { createHttpServer, type HttpServerOptions, listenHttp } from "#lib/core/http-server";
import type { WorkerMetrics } from "./metrics.js";

interface WorkerHttpOptions
  extends Pick<
    HttpServerOptions,
    "host" | "port" | "token" | "tls" | "withoutTls" | "insecure" | "onTlsNews"
  > {
  readonly metrics: WorkerMetrics;
}

/**
 * A worker's `/metrics`, `/healthz` and `/readyz` (ready once the coordinator has registered it).
 *
 * @throws E_INSECURE_HTTP, E_TLS_FILES, E_PORT_IN_USE, E_LISTEN_FAILED
 */
export async function startWorkerHttp(
  options: WorkerHttpOptions,
): Promise<{ readonly port: number; readonly server: FastifyInstance }> {
  const { metrics } = options;
  const settings: HttpServerOptions = {
    ...options,
    registry: metrics.registry,
    isReady: () => metrics.isRegistered,
    what: "metrics server of the worker",
  };
  const { server } = createHttpServer(settings);
  return { server, port: await listenHttp(server, settings) };
}
