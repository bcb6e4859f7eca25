import assert from "node:assert/strict";
import net from "node:net";
import { Registry } from "prom-client";
import { CoordinatorHttp } from "#coordinator/http";
import { LockstepError } from "#lib/core/errors/index";
import { maxBulkMessageBytes } from "#lib/wire/bulk-protocol";
import { registerBulkService } from "#lib/wire/bulk-server";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { GrpcServer } from "#lib/wire/grpc-server";
import type { Target } from "#tests/fuzz/target";
import { texts } from "./files.js";

/** What is sent gets an answer, or the connection is closed; a client that is slow to end is ended. */
const maxAnswerMs = 20;
const maxAnswerBytes = 2 ** 20;

/** Sends bytes on a connection of their own and reads what comes, until the wanted bytes or the wait is over. */
function exchange(
  port: number,
  input: Uint8Array,
  { waitMs = maxAnswerMs, wantedBytes = maxAnswerBytes } = {},
): Promise<Buffer> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    let numBytes = 0;
    const socket = net.connect({ host: "127.0.0.1", port });
    const finish = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(Buffer.concat(parts));
    };
    const timer = setTimeout(finish, waitMs);
    socket.on("data", (part) => {
      parts.push(part);
      numBytes += part.length;
      if (numBytes >= wantedBytes) finish();
    });
    // Sockets that are reset in the middle of an answer are none of the server's faults.
    socket.on("error", finish);
    socket.on("close", finish);
    socket.end(input);
  });
}

const request = (line: string, ...headers: string[]): string =>
  [line, "Host: 127.0.0.1", ...headers, "", ""].join("\r\n");

const healthCheck = Buffer.from(request("GET /healthz HTTP/1.1", "Connection: close"));
/** Between two looks whether the server still serves. */
const inputsPerCheck = 50;
/** A machine with other work; nobody waits for it where the server answers. */
const maxHealthMs = 60_000;

const http: Target = {
  name: "sockets/http",
  share: 4,
  async open() {
    const bus = new InProcessEventBus();
    const options = { host: "127.0.0.1", port: 0, registry: new Registry(), isReady: () => true };
    const server = new CoordinatorHttp({ ...options, bus, token: "secret" });
    const port = await server.listen();
    let numInputs = 0;
    return {
      kind: "bytes",
      form: "text",
      corpus: texts(
        request("GET / HTTP/1.1"),
        request("GET /metrics?token=secret HTTP/1.1"),
        request("GET /events HTTP/1.1", "Authorization: Bearer secret"),
        request("POST /healthz HTTP/1.1", "Content-Type: application/json", "Content-Length: 2"),
        `${request("PUT /x HTTP/1.1", "Transfer-Encoding: chunked")}5\r\nhello\r\n0\r\n\r\n`,
        request("OPTIONS * HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c"),
        request("GET /..%2f..%2fetc/passwd HTTP/1.0", "Cookie: token=secret"),
      ),
      words: [
        "HTTP/9.9",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "ffffffffffffffff\r\n",
        "Expect: 100-continue\r\n",
        "Host: evil.example\r\n",
        "Content-Type: application/json; charset=\xff\r\n",
        "%00",
        "%",
        "//",
        "http://[::1",
        "?token=%ff",
        "/__proto__",
        "X: ",
        "\r\n\r\n",
        "Cookie: ",
      ],
      async read(input) {
        const answer = await exchange(port, input);
        const text = answer.toString("latin1");
        // Nothing is told of what the server is made of.
        assert.doesNotMatch(text, /node_modules|\bat [\w.]+ \(|HTTP\/1\.1 500/);
        if (numInputs++ % inputsPerCheck > 0) return;
        const health = await exchange(port, healthCheck, { waitMs: maxHealthMs });
        assert.match(health.toString("latin1"), /^HTTP\/1\.1 200 /);
      },
      close: () => server.close(),
    };
  },
};

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/** Length, type, flags and stream of an HTTP/2 frame, and its payload. */
const http2Frame = (type: number, flags: number, stream: number, payload: Uint8Array): Buffer => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
};
const settings = http2Frame(4, 0, 0, Buffer.alloc(0));
/** A call of a method, its headers as literals that are not indexed. */
function call(path: string, message: Uint8Array): Buffer {
  const literal = (name: string, value: string): Buffer =>
    Buffer.concat([
      Buffer.from([0, name.length]),
      Buffer.from(name),
      Buffer.from([value.length]),
      Buffer.from(value),
    ]);
  const headers = Buffer.concat([
    literal(":method", "POST"),
    literal(":scheme", "http"),
    literal(":path", path),
    literal(":authority", "127.0.0.1"),
    literal("content-type", "application/grpc"),
    literal("te", "trailers"),
  ]);
  const length = Buffer.alloc(5);
  length.writeUInt32BE(message.length, 1);
  return Buffer.concat([
    Buffer.from(preface),
    settings,
    http2Frame(1, 4, 1, headers),
    http2Frame(0, 1, 1, Buffer.concat([length, message])),
  ]);
}

const grpc: Target = {
  name: "sockets/grpc",
  share: 4,
  async open() {
    const server = new GrpcServer({ security: {}, maxReceiveBytes: maxBulkMessageBytes });
    registerBulkService(server, {
      async pushGradients(_, frames) {
        let receivedBytes = 0;
        for await (const { payload } of frames) receivedBytes += payload.length;
        return { outcome: "complete", receivedBytes };
      },
      pullParameters({ version }) {
        throw new LockstepError("E_VERSION_NOT_PUBLISHED", { version, published: [] });
      },
    });
    const port = await server.listen("127.0.0.1", 0);
    const pull = call("/lockstep.v1.Bulk/PullParameters", Buffer.from("PULL00000000"));
    let numInputs = 0;
    return {
      kind: "bytes",
      form: "bytes",
      corpus: [
        pull,
        call("/lockstep.v1.Bulk/PushGradients", Buffer.alloc(36)),
        call("/lockstep.v1.Bulk/None", Buffer.alloc(0)),
        Buffer.concat([Buffer.from(preface), settings, http2Frame(6, 0, 0, Buffer.alloc(8))]),
      ],
      async read(input) {
        await exchange(port, input);
        if (numInputs++ % inputsPerCheck > 0) return;
        const answer = await exchange(port, pull, { waitMs: maxHealthMs, wantedBytes: 9 });
        // It greets a caller that greets: its own settings come first.
        assert.equal(answer[3], 4);
      },
      close: () => server.close(0),
    };
  },
};

export const targets: readonly Target[] = [http, grpc];
