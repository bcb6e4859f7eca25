import Fastify, {
  type FastifyInstance,
  type FastifyRequest,
  type FastifyServerOptions,
} from "fastify";
import { lookup } from "node:dns/promises";
import type { Server as TlsServer } from "node:tls";
import type { Registry } from "prom-client";
import { bareHost, isLoopback } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { ConnectionGate, type ConnectionLimits } from "./connection-gate.js";
import { httpPortCounts } from "./connection-limits.js";
import { HttpAccess, type HttpQuestion } from "./http-access.js";
import { followTlsFiles, TlsFiles, type TlsFileNames } from "./tls-files.js";

/** Requests here carry a token at most; headers of a browser are a few kB. */
const maxBodyBytes = 16 * 1024;
/** A request line and its headers that take longer are an attack or a dead client. */
const requestTimeoutMs = 10_000;

export interface HttpServerOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly registry: Registry;
  /** Whether the program can do its work, for `/readyz`. */
  readonly isReady: () => boolean;
  /** What the server is, for messages: "metrics server of the coordinator". */
  readonly what: string;
  /** When set, everything but the health checks asks for it as a bearer token, or for a session. */
  readonly token?: string | undefined;
  /** Paths beside the health checks that need no token: files without secrets. */
  readonly openPaths?: readonly string[];
  /** Where a browser without a session is sent from the root. */
  readonly signInPath?: string;
  /** Certificate and key; they are read again when they change. Absent: HTTP without TLS. */
  readonly tls?: TlsFileNames | undefined;
  /** Told in a line for a person when the certificate's files change. */
  readonly onTlsNews?: (line: string) => void;
  /** Something in front of this server has TLS. */
  readonly withoutTls?: boolean;
  /** Allows a host beyond loopback without a token and without TLS. */
  readonly insecure?: boolean;
  /** Called when connections were closed because there were too many, or because they sent nothing. */
  readonly onRefusedConnections?: ConnectionLimits["onRefused"];
}

interface HttpServer {
  readonly server: FastifyInstance;
  readonly access: HttpAccess;
}

/**
 * `/metrics`, `/healthz`, `/readyz`; the caller adds routes before {@link listenHttp}.
 *
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_TLS_FILES
 */
export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { registry, token, tls, host } = options;
  const files = tls && new TlsFiles(tls, options.onTlsNews ?? (() => {}));
  const server = Fastify({
    logger: false,
    bodyLimit: maxBodyBytes,
    requestTimeout: requestTimeoutMs,
    forceCloseConnections: true,
    ...(files === undefined
      ? {}
      : { https: { ...files.texts, handshakeTimeout: requestTimeoutMs } }),
    // Fastify's types have a server of another type with TLS; routes are the same.
  } as FastifyServerOptions);
  if (files !== undefined) followTlsFiles(server.server as unknown as TlsServer, files);
  const openPaths = new Set(["/healthz", "/readyz", ...(options.openPaths ?? [])]);
  const isSecure = tls !== undefined || options.withoutTls === true;
  const access = new HttpAccess({ host, token, openPaths, isSecure });
  const gate = new ConnectionGate(server.server, {
    ...httpPortCounts,
    onRefused: options.onRefusedConnections,
  });
  // Before the server is closed, which waits for all of them.
  server.addHook("preClose", async () => gate.closeAll());
  server.addHook("onRequest", async (request, reply) => {
    const question = questionOf(request);
    const refusal = access.refusal(question);
    if (refusal === undefined) {
      if (access.isProof(question)) gate.prove(request.raw.socket);
      return undefined;
    }
    const { status, error, retryAfterSeconds } = refusal;
    if (status === 401) {
      if (options.signInPath !== undefined && question.route === "/") {
        return reply.redirect(options.signInPath, 303);
      }
      reply.header("www-authenticate", "Bearer");
    }
    if (retryAfterSeconds !== undefined) reply.header("retry-after", retryAfterSeconds);
    return reply.code(status).send({ error });
  });
  server.addHook("onSend", async (_, reply) => {
    reply.header("x-content-type-options", "nosniff");
    // Not no-referrer, with which browsers hide the origin of a form too.
    reply.header("referrer-policy", "same-origin");
  });
  server.get("/metrics", async (_, reply) => {
    reply.type(registry.contentType);
    return registry.metrics();
  });
  server.get("/healthz", async () => ({ status: "ok" }));
  server.get("/readyz", async (_, reply) => {
    const ready = options.isReady();
    return reply.code(ready ? 200 : 503).send({ status: ready ? "ready" : "starting" });
  });
  return { server, access };
}

/** What decides about a request. */
export const questionOf = (request: FastifyRequest): HttpQuestion => ({
  method: request.method,
  route: request.routeOptions.url,
  query: request.query as Record<string, unknown>,
  headers: request.headers,
  address: request.socket.remoteAddress ?? "",
});

/**
 * @returns the port it listens on
 * @throws E_INSECURE_HTTP, E_PORT_IN_USE, E_LISTEN_FAILED
 */
export async function listenHttp(
  server: FastifyInstance,
  options: HttpServerOptions,
): Promise<number> {
  const { host, port, what } = options;
  assertProtected(options);
  try {
    // Given a name, Fastify listens at its other addresses with servers of its own, which have no gate.
    const { address } = await lookup(bareHost(host));
    await server.listen({ host: address, port });
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "EADDRINUSE") {
      throw new LockstepError("E_PORT_IN_USE", { host, port, what }, { cause });
    }
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError("E_LISTEN_FAILED", { host, port, reason }, { cause });
  }
  const address = server.server.address();
  return typeof address === "object" && address !== null ? address.port : port;
}

/** @throws E_INSECURE_HTTP where other machines could read what nobody else may */
function assertProtected(options: HttpServerOptions): void {
  const { host, port, what, token, tls, withoutTls, insecure } = options;
  if (isLoopback(host) || insecure === true) return;
  const missing = [
    ...(tls === undefined && withoutTls !== true
      ? ["TLS (http_tls_cert_file, http_tls_key_file)"]
      : []),
    ...(token === undefined ? ["a token (http_token_file)"] : []),
  ].join(" and ");
  if (missing !== "") throw new LockstepError("E_INSECURE_HTTP", { host, port, what, missing });
}
