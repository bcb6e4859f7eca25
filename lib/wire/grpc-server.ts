import type { Http2Server } from "node:http2";
import type { Server as TlsServer } from "node:tls";
import grpc from "@grpc/grpc-js";
import { hostPort } from "#lib/core/address";
import type { ConnectionLimits } from "#lib/core/connection-gate";
import { LockstepError } from "#lib/core/errors/index";
import { followTlsFiles } from "#lib/core/tls-files";
import { silenceGrpcLog } from "./grpc-log.js";
import {
  channelWindowBytes,
  keepaliveTimeMs,
  keepaliveTimeoutMs,
  maxUnreadMessages,
} from "./limits.js";
import { toStatus } from "./rpc-errors.js";
import { LimitedServer } from "./server-limits.js";
import {
  assertBindAllowed,
  assertJoinToken,
  certificateHolder,
  serverCredentials,
  tlsFilesOf,
  type WireSecurity,
} from "./security.js";

interface GrpcServerOptions {
  readonly security: WireSecurity;
  /** Flow-control window of a stream and of a connection, bytes. */
  readonly windowBytes?: number;
  /** Largest message accepted, bytes. */
  readonly maxReceiveBytes: number;
  /** Called after each call, for metrics. */
  readonly onHandled?: (method: string, code: string, seconds: number) => void;
  /** Told in a line for a person when the certificate files change. */
  readonly onTlsNews?: (line: string) => void;
  /** Called when connections were closed for the limits' sake. */
  readonly onRefusedConnections?: ConnectionLimits["onRefused"];
}

/** Facts about the caller that a handler may use. */
export interface CallContext {
  readonly peer: string;
  /** Whom the caller's certificate names; undefined without mutual TLS. */
  readonly certificate: string | undefined;
  readonly metadata: grpc.Metadata;
  /** Aborted when the caller went away or its deadline passed. */
  readonly signal: AbortSignal;
}

/** The private member of grpc-js 1.14 that makes the servers of its ports. */
interface ServerInternals {
  createHttp2Server(credentials: grpc.ServerCredentials): Http2Server;
}

/**
 * A gRPC server with limits on what strangers take of it, and with a flow-control window that suits tensors.
 *
 * grpc-js applies `grpc-node.flow_control_window` to clients only, which leaves uploads at HTTP/2's
 * 64 KiB: 3 MB/s at 10 ms of latency.
 */
export class GrpcServer {
  readonly #server: grpc.Server;
  readonly #limits: LimitedServer;
  readonly #options: GrpcServerOptions;
  readonly #paths = new Set<string>();

  constructor(options: GrpcServerOptions) {
    silenceGrpcLog();
    this.#options = options;
    this.#server = new grpc.Server({
      "grpc.max_receive_message_length": options.maxReceiveBytes,
      "grpc.keepalive_time_ms": keepaliveTimeMs,
      "grpc.keepalive_timeout_ms": keepaliveTimeoutMs,
      "grpc.enable_channelz": 0,
    });
    const { security, onHandled } = options;
    this.#limits = new LimitedServer(this.#server, {
      windowBytes: options.windowBytes ?? channelWindowBytes,
      maxReceiveBytes: options.maxReceiveBytes,
      provenBy:
        security.joinToken !== undefined
          ? "headers"
          : security.tls !== undefined
            ? "handshake"
            : "message",
      admit: (headers, peer) =>
        assertJoinToken(security, grpc.Metadata.fromHttp2Headers(headers), peer),
      onRefusedCall: (path, code) =>
        onHandled?.(this.#paths.has(path) ? methodOf(path) : "unknown", code, 0),
      onRefusedConnections: options.onRefusedConnections,
    });
    followCertificates(this.#server, options);
  }

  addUnary<Request, Reply>(
    definition: grpc.MethodDefinition<Request, Reply>,
    handle: (request: Request, context: CallContext) => Promise<Reply>,
  ): void {
    this.#add(
      definition,
      (call: grpc.ServerUnaryCall<Request, Reply>, callback: grpc.sendUnaryData<Reply>) => {
        void this.#handle(definition.path, call, async (context) =>
          handle(decoded(call.request), context),
        ).then(
          (reply) => callback(null, reply),
          (error: unknown) => callback(toStatus(error)),
        );
      },
    );
  }

  addClientStream<Request, Reply>(
    definition: grpc.MethodDefinition<Request, Reply>,
    handle: (messages: AsyncIterable<Request>, context: CallContext) => Promise<Reply>,
  ): void {
    this.#add(
      definition,
      (call: grpc.ServerReadableStream<Request, Reply>, callback: grpc.sendUnaryData<Reply>) => {
        // A caller that vanishes shows as an error of the iteration; without a listener it would be fatal.
        call.on("error", () => {});
        limitUnread(call);
        void this.#handle(definition.path, call, async (context) => {
          // An aborted caller must not leave the handler waiting for more.
          context.signal.addEventListener("abort", () =>
            call.destroy(
              new LockstepError("E_RPC_UNAVAILABLE", {
                method: definition.path,
                address: context.peer,
                reason: "the caller went away",
              }),
            ),
          );
          return handle(decodedEach(call), context);
        }).then(
          (reply) => callback(null, reply),
          (error: unknown) => callback(toStatus(error)),
        );
      },
    );
  }

  addServerStream<Request, Reply>(
    definition: grpc.MethodDefinition<Request, Reply>,
    handle: (request: Request, context: CallContext) => AsyncIterable<Reply> | Iterable<Reply>,
  ): void {
    this.#add(definition, (call: grpc.ServerWritableStream<Request, Reply>) => {
      void this.#handle(definition.path, call, async (context) => {
        for await (const message of handle(decoded(call.request), context)) {
          if (context.signal.aborted) return;
          if (!call.write(message)) await drained(call, context.signal);
        }
      }).then(
        () => call.end(),
        (error: unknown) => call.emit("error", toStatus(error)),
      );
    });
  }

  /** @returns the port. @throws E_INSECURE_BIND, E_PORT_IN_USE, E_LISTEN_FAILED */
  async listen(host: string, port: number): Promise<number> {
    assertBindAllowed(host, this.#options.security);
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(
        hostPort(host, port),
        serverCredentials(this.#options.security),
        (error, boundPort) => {
          if (error === null) return resolve(boundPort);
          reject(
            error.message.includes("EADDRINUSE")
              ? new LockstepError(
                  "E_PORT_IN_USE",
                  { host, port, what: "gRPC server" },
                  { cause: error },
                )
              : new LockstepError("E_LISTEN_FAILED", { host, port, reason: error.message }),
          );
        },
      );
    });
  }

  /** Ends idle connections, gives calls in progress `graceMs`, then cuts them; no socket is open afterwards. */
  async close(graceMs = 500): Promise<void> {
    this.#limits.beginClose();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#server.forceShutdown();
        resolve();
      }, graceMs);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    this.#limits.endClose();
  }

  #add<Request, Reply>(
    definition: grpc.MethodDefinition<Request, Reply>,
    handler:
      | grpc.handleUnaryCall<Request, Reply>
      | grpc.handleClientStreamingCall<Request, Reply>
      | grpc.handleServerStreamingCall<Request, Reply>,
  ): void {
    const type = definition.requestStream
      ? "clientStream"
      : definition.responseStream
        ? "serverStream"
        : "unary";
    this.#paths.add(definition.path);
    this.#server.register(
      definition.path,
      handler as grpc.UntypedHandleCall,
      definition.responseSerialize,
      decode(definition.requestDeserialize),
      type,
    );
  }

  async #handle<Result>(
    path: string,
    call:
      | grpc.ServerUnaryCall<unknown, unknown>
      | grpc.ServerReadableStream<unknown, unknown>
      | grpc.ServerWritableStream<unknown, unknown>,
    handle: (context: CallContext) => Promise<Result>,
  ): Promise<Result> {
    const startedAt = performance.now();
    const abort = new AbortController();
    const onCancelled = (): void => abort.abort();
    (call as NodeJS.EventEmitter).once("cancelled", onCancelled);
    let code = "OK";
    try {
      const peer = peerAddress(call.getPeer());
      const certificate = certificateHolder(call);
      return await handle({ peer, certificate, metadata: call.metadata, signal: abort.signal });
    } catch (error) {
      code = grpc.status[toStatus(error).code] ?? "UNKNOWN";
      throw error;
    } finally {
      // grpc-js also says "cancelled" after a normal end; nobody listens any more by then.
      (call as NodeJS.EventEmitter).off("cancelled", onCancelled);
      this.#options.onHandled?.(methodOf(path), code, (performance.now() - startedAt) / 1000);
    }
  }
}

const methodOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1);

/** grpc-js joins an IPv6 host and its port by a colon alone. */
function peerAddress(peer: string): string {
  const [, host, port] = /^(.*):(\d+)$/.exec(peer) ?? [];
  return host === undefined || port === undefined ? peer : hostPort(host, port);
}

/**
 * A message that cannot be decoded is handed on with its error, so that the handler's path answers
 * with the catalogue code: grpc-js itself says INTERNAL, which looks like a broken connection.
 */
type Decoded<T> = { readonly value: T } | { readonly error: unknown };

const decode =
  <T>(deserialize: (bytes: Buffer) => T) =>
  (bytes: Buffer): Decoded<T> => {
    try {
      return { value: deserialize(bytes) };
    } catch (error) {
      return { error };
    }
  };

function decoded<T>(message: T): T {
  const result = message as unknown as Decoded<T>;
  if ("error" in result) throw result.error;
  return result.value;
}

async function* decodedEach<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
  for await (const message of messages) yield decoded(message);
}

/** Calls back with each HTTP/2 server that grpc-js makes, before it listens. */
function onHttp2Server(server: grpc.Server, callback: (http2Server: Http2Server) => void): void {
  const internals = server as unknown as ServerInternals;
  const createHttp2Server = internals.createHttp2Server.bind(server);
  internals.createHttp2Server = (credentials) => {
    const http2Server = createHttp2Server(credentials);
    callback(http2Server);
    return http2Server;
  };
}

/** grpc-js follows files by a timer, and forgets what it had when one is broken. */
function followCertificates(server: grpc.Server, options: GrpcServerOptions): void {
  const files = tlsFilesOf(options.security, options.onTlsNews ?? (() => {}));
  if (files === undefined) return;
  onHttp2Server(server, (http2Server) => {
    const tlsServer = http2Server as unknown as TlsServer;
    // They may have changed since the credentials' texts were read.
    tlsServer.setSecureContext(files.texts);
    followTlsFiles(tlsServer, files);
  });
}

/** grpc-js reads 16 messages ahead, of whatever size. */
function limitUnread(call: object): void {
  const { _readableState: state } = call as { _readableState: { highWaterMark: number } };
  state.highWaterMark = maxUnreadMessages;
}

async function drained(
  stream: NodeJS.EventEmitter & { readonly destroyed?: boolean },
  signal: AbortSignal,
): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      stream.off("drain", done);
      stream.off("close", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("close", done);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
