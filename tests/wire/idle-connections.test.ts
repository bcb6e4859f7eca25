import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { Registry } from "prom-client";
import { createHttpServer, listenHttp } from "#lib/core/http-server";
import { packageRoot } from "#lib/core/paths";
import { GrpcServer } from "#lib/wire/grpc-server";
import { loadWireSecurity } from "#lib/wire/security";

// A connection that never becomes a request is none of those that gRPC and HTTP servers know when they close.

const certificates = join(packageRoot, "tests/fixtures/tls");

/** A TLS 1.2 record header that announces a ClientHello, of which three bytes follow. */
const halfHandshake = Buffer.from([0x16, 0x03, 0x01, 0x01, 0x00, 0x01, 0x00, 0x00]);
/** What clients have said when they fall silent. */
const beginnings: readonly (readonly [name: string, bytes: Buffer])[] = [
  ["nothing", Buffer.alloc(0)],
  ["half an HTTP/2 preface", Buffer.from("PRI * HTTP/2.0\r\n")],
  ["half a TLS handshake", halfHandshake],
  ["half an HTTP/1 request", Buffer.from("GET /metrics HTTP/1.1\r\nhost: x\r\n")],
  ["an HTTP/2 preface without settings", Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
];

/** Connections in every state of silence, all of which the server has accepted. */
async function silentClients(port: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  for (const [, bytes] of beginnings) {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => {});
    await once(socket, "connect");
    if (bytes.length > 0) await new Promise<void>((sent) => socket.write(bytes, () => sent()));
    socket.resume();
    sockets.push(socket);
  }
  return sockets;
}

/** Closing ends each connection; the test's own limit says how long that may take. */
async function closesAll(port: number, close: () => Promise<unknown>): Promise<void> {
  const sockets = await silentClients(port);
  const ends = sockets.map(
    (socket) =>
      new Promise<void>((resolve) => {
        if (socket.closed) resolve();
        socket.once("close", () => resolve());
      }),
  );
  await close();
  await Promise.all(ends);
}

const limit = { timeout: 60_000 };

test("a gRPC server that closes leaves no connection, plain or TLS", limit, async () => {
  const mutual = {
    tlsCaFile: join(certificates, "ours-ca.pem"),
    tlsCertFile: join(certificates, "ours.pem"),
    tlsKeyFile: join(certificates, "ours.key"),
  };
  for (const security of [{}, await loadWireSecurity(mutual, () => {})]) {
    const server = new GrpcServer({ security, maxReceiveBytes: 1024 });
    const port = await server.listen("127.0.0.1", 0);
    await closesAll(port, () => server.close(50));
  }
});

test("an HTTP server that closes leaves no connection", limit, async () => {
  const options = {
    ...{ host: "127.0.0.1", port: 0, registry: new Registry(), what: "server of a test" },
    isReady: () => true,
  };
  const http = createHttpServer(options);
  const port = await listenHttp(http.server, options);
  await closesAll(port, () => http.server.close());
});
