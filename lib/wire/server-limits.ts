import http2, {
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type Settings,
} from "node:http2";
import type { Server } from "node:net";
import grpc from "@grpc/grpc-js";
import { hostPort } from "#lib/core/address";
import { ConnectionGate, type ConnectionLimits } from "#lib/core/connection-gate";
import { workerPortCounts } from "#lib/core/connection-limits";
import { LockstepError } from "#lib/core/errors/index";
import { maxReasonChars, messageIdleMs } from "./limits.js";
import { toStatus } from "./rpc-errors.js";
import { UnfinishedMessages } from "./unfinished-messages.js";

/** The private members of grpc-js 1.14 that decide what a client may send, and that take a call first. */
interface ServerInternals {
  commonServerOptions: { settings?: Settings };
  createHttp2Server(credentials: grpc.ServerCredentials): Http2Server;
  _streamHandler(
    interceptors: unknown,
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
  ): void;
}

interface ServerLimits {
  /** Window of a stream, and of a connection that is proven, bytes. */
  readonly windowBytes: number;
  /** Largest message, bytes. */
  readonly maxReceiveBytes: number;
  /** What shows that a connection may be here: headers that `admit` takes, TLS, or any whole message. */
  readonly provenBy: "headers" | "handshake" | "message";
  /** Looks at the headers of a call before a byte of it is read. @throws an error of the catalogue */
  readonly admit: (headers: IncomingHttpHeaders, peer: string) => void;
  readonly onRefusedCall: (path: string, code: string) => void;
  readonly onRefusedConnections: ConnectionLimits["onRefused"];
}

/** Calls that a connection may have open at once; a worker has some six. */
const maxStreams = 100;
/** Of one that has shown nothing. */
const maxUnprovenStreams = 8;
/** A stranger's first message is small, or one chunk of a tensor. */
const unprovenBudgetBytes = 16 * 1024 * 1024;
/** Messages of full size that may be on their way at once. */
const maxFullMessages = 4;
const minBudgetBytes = 64 * 1024 * 1024;

/**
 * Bounds what others can take of a gRPC server before its handlers know of it: connections and their number
 * of calls, bytes of messages that do not end, and the window in which bytes come unasked. Calls that are
 * refused by their headers are answered at once; their bytes stay unread.
 *
 * It reaches into the pinned version's private members; tests check what a client is really offered.
 */
export class LimitedServer {
  readonly #limits: ServerLimits;
  readonly #gates: ConnectionGate[] = [];
  readonly #members: UnfinishedMessages;
  readonly #strangers: UnfinishedMessages;
  readonly #numStreams = new WeakMap<ServerHttp2Session, number>();

  constructor(server: grpc.Server, limits: ServerLimits) {
    this.#limits = limits;
    const { windowBytes, maxReceiveBytes } = limits;
    const giveUp = (stream: ServerHttp2Stream, path: string): void => {
      limits.onRefusedCall(path, "CANCELLED");
      // An honest sender tries again.
      stream.close(http2.constants.NGHTTP2_CANCEL);
    };
    this.#members = new UnfinishedMessages({
      budgetBytes: Math.max(minBudgetBytes, maxFullMessages * maxReceiveBytes),
      idleMs: messageIdleMs,
      giveUp,
    });
    this.#strangers = new UnfinishedMessages({
      budgetBytes: unprovenBudgetBytes,
      idleMs: messageIdleMs,
      giveUp,
    });
    const internals = server as unknown as ServerInternals;
    internals.commonServerOptions.settings = {
      ...internals.commonServerOptions.settings,
      initialWindowSize: windowBytes,
      maxConcurrentStreams: maxStreams,
    };
    const createHttp2Server = internals.createHttp2Server.bind(server);
    internals.createHttp2Server = (credentials) => {
      const http2Server = createHttp2Server(credentials);
      this.#guard(http2Server);
      return http2Server;
    };
    const streamHandler = internals._streamHandler.bind(server);
    internals._streamHandler = (interceptors, stream, headers) => {
      if (!this.#admit(stream, headers)) return;
      streamHandler(interceptors, stream, headers);
      // Answered already: there is no such method.
      if (stream.writableEnded) stream.close(http2.constants.NGHTTP2_NO_ERROR);
    };
  }

  /** The server is closing: only calls in progress of those that are proven go on. */
  beginClose(): void {
    for (const gate of this.#gates) gate.closeUnproven();
    this.#members.close();
    this.#strangers.close();
  }

  /** The server is closed: no socket stays open. */
  endClose(): void {
    for (const gate of this.#gates) gate.closeAll();
  }

  #guard(http2Server: Http2Server): void {
    const gate = new ConnectionGate(http2Server as unknown as Server, {
      ...workerPortCounts,
      onRefused: this.#limits.onRefusedConnections,
    });
    this.#gates.push(gate);
    if (this.#limits.provenBy === "handshake") {
      http2Server.on("session", (session) => this.#prove(session));
    }
  }

  #isProven({ socket }: ServerHttp2Session): boolean {
    return this.#gates.some((gate) => gate.isProven(socket));
  }

  /** The connection may be here, and bytes may come faster. */
  #prove(session: ServerHttp2Session): void {
    if (session.destroyed || this.#isProven(session)) return;
    if (!this.#gates.some((gate) => gate.prove(session.socket))) return;
    session.setLocalWindowSize(this.#limits.windowBytes);
  }

  /** Whether a call goes to its handler; otherwise it has been answered. */
  #admit(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): boolean {
    const session = stream.session as ServerHttp2Session | undefined;
    if (session === undefined || session.destroyed) return false;
    const { remoteAddress = "", remotePort = 0 } = session.socket;
    // Of a connection that breaks.
    stream.on("error", () => {});
    try {
      if ((headers["grpc-encoding"] ?? "identity") !== "identity") {
        throw new LockstepError("E_MESSAGE_INVALID", {
          message: pathOf(headers).slice(0, maxReasonChars),
          field: "its encoding",
          reason: "is not identity",
        });
      }
      this.#limits.admit(headers, hostPort(remoteAddress, remotePort));
    } catch (error) {
      this.#refuse(stream, headers, error);
      if (!this.#isProven(session)) session.close();
      return false;
    }
    if (this.#limits.provenBy === "headers") this.#prove(session);
    if (this.#isProven(session)) {
      this.#members.watch(stream, pathOf(headers));
      return true;
    }
    const numStreams = (this.#numStreams.get(session) ?? 0) + 1;
    this.#numStreams.set(session, numStreams);
    if (numStreams > maxUnprovenStreams) {
      session.destroy();
      return false;
    }
    this.#strangers.watch(stream, pathOf(headers), () => this.#prove(session));
    return true;
  }

  /** As grpc-js does it, without reading what the caller sends. */
  #refuse(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, error: unknown): void {
    const { code, details, metadata } = toStatus(error);
    this.#limits.onRefusedCall(pathOf(headers), grpc.status[code] ?? "UNKNOWN");
    stream.respond(
      {
        ":status": 200,
        "content-type": "application/grpc+proto",
        "grpc-status": code,
        "grpc-message": encodeURI(details),
        ...metadata.toHttp2Headers(),
      },
      { endStream: true },
    );
    stream.close(http2.constants.NGHTTP2_NO_ERROR);
  }
}

const pathOf = (headers: IncomingHttpHeaders): string => String(headers[":path"] ?? "");
