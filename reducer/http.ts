import type { FastifyInstance } from "fastify";
import { createHttpServer, type HttpServerOptions, listenHttp } from "#lib/core/http-server";

type ReducerHttpOptions = Pick<
  HttpServerOptions,
  | "host"
  | "port"
  | "token"
  | "tls"
  | "withoutTls"
  | "insecure"
  | "onTlsNews"
  | "registry"
  | "isReady"
>;

/**
 * A reducer's `/metrics`, `/healthz` and `/readyz` (ready once it listens: a coordinator waits for that).
 *
 * @throws E_INSECURE_HTTP, E_TLS_FILES, E_PORT_IN_USE, E_LISTEN_FAILED
 */
export async function startReducerHttp(
  options: ReducerHttpOptions,
): Promise<{ readonly port: number; readonly server: FastifyInstance }> {
  const settings: HttpServerOptions = { ...options, what: "metrics server of the reducer" };
  const { server } = createHttpServer(settings);
  return { server, port: await listenHttp(server, settings) };
}
