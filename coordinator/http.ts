import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import type { FastifyInstance, FastifyReply } from "fastify";
import { createHttpServer, type HttpServerOptions, listenHttp } from "#lib/core/http-server";
import { packageRoot } from "#lib/core/paths";
import type { EventBus } from "#lib/wire/event-bus";
import { refusalsOf } from "./refused-connections.js";
import { EventHistory, type TimedEvent } from "./event-history.js";
import { addSignIn, signInPath } from "./sign-in.js";

/** Pages that may follow at once; each holds a socket and a copy of the history while it connects. */
const maxFollowers = 64;
/** A page that reads so little that this much waits for it is cut off; it connects again by itself. */
const maxWaitingBytes = 4 << 20;
const keepAliveIntervalMs = 15_000;

const pageFiles: readonly (readonly [route: string, file: string, contentType: string])[] = [
  ["/", "index.html", "text/html; charset=utf-8"],
  ["/dashboard.css", "dashboard.css", "text/css; charset=utf-8"],
  ["/main.js", "main.js", "text/javascript; charset=utf-8"],
  ["/run-state.js", "run-state.js", "text/javascript; charset=utf-8"],
  ["/chart.js", "chart.js", "text/javascript; charset=utf-8"],
  ["/login.js", "login.js", "text/javascript; charset=utf-8"],
];
/** Files without secrets; the page itself sends whoever is not signed in to the form. */
const openPaths = [...pageFiles.map(([route]) => route), `/${signInPath}`].filter(
  (route) => route !== "/",
);
/** The page loads nothing from elsewhere, runs no inline script, and its form goes nowhere else. */
const contentSecurityPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

export interface CoordinatorHttpOptions extends Omit<HttpServerOptions, "what"> {
  readonly bus: EventBus;
  readonly nowMs?: () => number;
}

/** The coordinator's HTTP: metrics, health, the dashboard and its stream of events. */
export class CoordinatorHttp {
  readonly #options: HttpServerOptions;
  readonly #server: FastifyInstance;
  readonly #history: EventHistory;
  readonly #followers = new Set<ServerResponse>();
  readonly #unsubscribe: () => void;
  readonly #keepAlive: NodeJS.Timeout;

  constructor(options: CoordinatorHttpOptions) {
    const nowMs = options.nowMs ?? Date.now;
    this.#options = {
      ...options,
      what: "metrics server of the coordinator",
      openPaths,
      ...(options.token === undefined ? {} : { signInPath }),
      onRefusedConnections: refusalsOf(options.bus, "http"),
    };
    const { server, access } = createHttpServer(this.#options);
    this.#server = server;
    if (options.token !== undefined) {
      addSignIn(server, access, (reply, change) =>
        sendFile(reply, "login.html", "text/html; charset=utf-8", change),
      );
    }
    this.#history = new EventHistory(options.bus, nowMs);
    this.#unsubscribe = options.bus.subscribe((event) => {
      if (this.#followers.size === 0) return;
      // Several a second a worker, and of no use to a page.
      if (event.type === "rpc.handled" || event.type === "bytes.transferred") return;
      const message = formatMessage({ timeMs: nowMs(), event });
      for (const follower of this.#followers) this.#send(follower, message);
    });
    this.#keepAlive = setInterval(() => {
      for (const follower of this.#followers) this.#send(follower, ": still here\n\n");
    }, keepAliveIntervalMs);
    this.#keepAlive.unref();
    this.#addRoutes();
  }

  /** @returns the port. @throws E_INSECURE_HTTP, E_PORT_IN_USE, E_LISTEN_FAILED */
  async listen(): Promise<number> {
    return listenHttp(this.#server, this.#options);
  }

  async close(): Promise<void> {
    clearInterval(this.#keepAlive);
    this.#unsubscribe();
    this.#history.close();
    for (const follower of this.#followers) follower.end();
    await this.#server.close();
  }

  #addRoutes(): void {
    for (const [route, file, contentType] of pageFiles) {
      this.#server.get(route, async (_, reply) => sendFile(reply, file, contentType));
    }
    // Asked for its headers alone, a stream that never ends would keep its follower's place and answer nothing.
    this.#server.get("/events", { exposeHeadRoute: false }, (request, reply) => {
      if (this.#followers.size >= maxFollowers) {
        reply.code(503).send({ error: `${maxFollowers} pages follow already` });
        return;
      }
      reply.hijack();
      const response = reply.raw;
      response.writeHead(200, {
        "content-type": "text/event-stream",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
      });
      // A page that reconnects starts from an empty state, so that nothing is counted twice.
      response.write("retry: 2000\nevent: reset\ndata: {}\n\n");
      for (const timed of this.#history.events()) response.write(formatMessage(timed));
      response.write("event: live\ndata: {}\n\n");
      this.#followers.add(response);
      request.raw.on("close", () => this.#followers.delete(response));
    });
  }

  #send(follower: ServerResponse, message: string): void {
    if (follower.writableLength > maxWaitingBytes) {
      this.#followers.delete(follower);
      follower.destroy();
      return;
    }
    follower.write(message);
  }
}

/** A file of the dashboard, changed on its way where `change` is given. */
async function sendFile(
  reply: FastifyReply,
  file: string,
  contentType: string,
  change: (page: string) => string = (page) => page,
): Promise<FastifyReply> {
  const path = join(packageRoot, "dist", "dashboard", file);
  if (!existsSync(path)) {
    return reply.code(404).send({ error: "the dashboard is not built: npm run build" });
  }
  return reply
    .type(contentType)
    .header("content-security-policy", contentSecurityPolicy)
    .header("cache-control", "no-cache")
    .send(change(await readFile(path, "utf8")));
}

/** One message of the stream; a figure that is not finite travels as its name. */
function formatMessage({ timeMs, event }: TimedEvent): string {
  const data = JSON.stringify({ timeMs, ...event }, (_, value: unknown) =>
    typeof value === "number" && !Number.isFinite(value) ? String(value) : value,
  );
  return `data: ${data}\n\n`;
}
