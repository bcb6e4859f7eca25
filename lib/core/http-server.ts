import { createHash, timingSafeEqual } from "node:crypto";
import Fastify, { type FastifyInstance } from "fastify";
import type { Registry } from "prom-client";
import { bareHost, isLoopback } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { ConnectionGate, type ConnectionLimits } from "./connection-gate.js";

/** Requests here carry no body; headers of a browser are a few kB. */
const maxBodyBytes = 16 * 1024;
/** A request line and its headers that take longer are an attack or a dead client. */
const requestTimeoutMs = 10_000;
/** Of those that have shown a token; without one, that have sent a request. */
const maxProvenConnections = 256;
const maxWaitingConnections = 64;
const maxHandedOverConnections = 64;

export interface HttpServerOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly registry: Registry;
  /** Whether the program can do its work, for `/readyz`. */
  readonly isReady: () => boolean;
  /** What the server is, for messages: "metrics server of the coordinator". */
  readonly what: string;
  /** When set, everything but the health checks asks for it as a bearer token or `?token=`. */
  readonly token?: string;
  /** Paths beside the health checks that need no token: files without secrets. */
  readonly openPaths?: readonly string[];
  /** Allows a host beyond loopback without a token. */
  readonly insecure?: boolean;
  /** Called when connections were closed because there were too many, or because they sent nothing. */
  readonly onRefusedConnections?: ConnectionLimits["onRefused"];
}

/** `/metrics`, `/healthz`, `/readyz`; the caller adds routes before {@link listenHttp}. */
export function createHttpServer(options: HttpServerOptions): FastifyInstance {
  const { registry, token } = options;
  const server = Fastify({
    logger: false,
    bodyLimit: maxBodyBytes,
    requestTimeout: requestTimeoutMs,
    forceCloseConnections: true,
  });
  const gate = new ConnectionGate(server.server, {
    maxWaiting: maxWaitingConnections,
    maxHandedOver: maxHandedOverConnections,
    maxProven: maxProvenConnections,
    onRefused: options.onRefusedConnections,
  });
  // Before the server is closed, which waits for all of them.
  server.addHook("preClose", async () => gate.close());
  const open = new Set(["/healthz", "/readyz", ...(options.openPaths ?? [])]);
  if (token !== undefined) {
    const expected = digest(token);
    server.addHook("onRequest", async (request, reply) => {
      const url = new URL(request.url, "http://localhost");
      if (open.has(url.pathname)) return undefined;
      const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
      const given = bearer ?? url.searchParams.get("token") ?? "";
      if (timingSafeEqual(digest(given), expected)) {
        gate.prove(request.raw.socket);
        return undefined;
      }
      return reply
        .code(401)
        .header("www-authenticate", "Bearer")
        .send({ error: "a token is required" });
    });
  } else {
    server.addHook("onRequest", async (request) => {
      gate.prove(request.raw.socket);
    });
  }
  server.addHook("onSend", async (_, reply) => {
    reply.header("x-content-type-options", "nosniff");
    reply.header("referrer-policy", "no-referrer");
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
  return server;
}

/**
 * @returns the port it listens on
 * @throws E_INSECURE_BIND, E_PORT_IN_USE, E_LISTEN_FAILED
 */
export async function listenHttp(
  server: FastifyInstance,
  options: HttpServerOptions,
): Promise<number> {
  const { host, port, what } = options;
  if (!isLoopback(host) && options.token === undefined && options.insecure !== true) {
    throw new LockstepError("E_INSECURE_BIND", { host, missing: "a token (http_token_file)" });
  }
  try {
    await server.listen({ host: bareHost(host), port });
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

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
