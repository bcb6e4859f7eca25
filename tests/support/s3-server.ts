import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "./ports.js";
import { toolPath } from "./tools.js";

export const bucket = "checkpoints";
/** What the client finds, and the server does not look at. */
export const credentials = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" };

/** An S3-compatible server whose objects outlive it. */
export class S3Server {
  readonly endpoint: string;
  readonly port: number;
  readonly #directory: string;
  #process: ChildProcess | undefined;

  private constructor(port: number, directory: string) {
    this.port = port;
    this.endpoint = `http://127.0.0.1:${port}`;
    this.#directory = directory;
  }

  static async start(): Promise<S3Server> {
    const directory = await mkdtemp(join(tmpdir(), "lockstep-s3-"));
    const server = new S3Server(await freePorts(1), directory);
    await server.restart();
    return server;
  }

  async restart(): Promise<void> {
    const child = spawn(
      toolPath("gofakes3"),
      [
        ...["-host", `127.0.0.1:${this.port}`, "-initialbucket", bucket, "-quiet"],
        ...["-backend", "fs", "-fs.path", join(this.#directory, "objects"), "-fs.create"],
      ],
      { stdio: "ignore" },
    );
    this.#process = child;
    const gone = once(child, "exit").then(() => {
      throw new Error("gofakes3 ended");
    });
    gone.catch(() => {});
    while (!(await Promise.race([isOpen(this.port), gone])));
  }

  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }

  async remove(): Promise<void> {
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

async function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/**
 * What becomes of a request on its way: passed on, without the range that it asks for or the conditions that it has, refused with a status, or its
 * answer cut off after some bytes.
 */
export type Fault =
  | "none"
  | "whole"
  | "unconditional"
  | number
  | { readonly cutAfterBytes: number };

/** Stands before a server and does what a network does. */
export async function faultyWay(
  server: S3Server,
  faultOf: (
    method: string,
    path: string,
    headers: IncomingMessage["headers"],
  ) => Fault | Promise<Fault>,
): Promise<{ readonly endpoint: string; readonly close: () => Promise<void> }> {
  const pass = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const fault = await faultOf(incoming.method ?? "", incoming.url ?? "", incoming.headers);
    if (typeof fault === "number") {
      incoming.resume();
      outgoing.writeHead(fault, { "content-type": "application/xml" });
      const code = fault === 501 ? "NotImplemented" : "InternalError";
      outgoing.end(`<Error><Code>${code}</Code><Message>a fault</Message></Error>`);
      return;
    }
    if (fault === "whole") delete incoming.headers.range;
    if (fault === "unconditional") {
      delete incoming.headers["if-match"];
      delete incoming.headers["if-none-match"];
    }
    passOn(server, incoming, outgoing, typeof fault === "string" ? Infinity : fault.cutAfterBytes);
  };
  const way = createServer((incoming, outgoing) => void pass(incoming, outgoing));
  way.listen(0, "127.0.0.1");
  await once(way, "listening");
  const address = way.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    close: async () => {
      way.closeAllConnections();
      way.close();
    },
  };
}

function passOn(
  server: S3Server,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  limitBytes: number,
): void {
  const { method, url, headers } = incoming;
  const onward = request({ host: "127.0.0.1", port: server.port, method, path: url, headers });
  onward.on("error", () => outgoing.destroy());
  onward.on("response", (answer) => {
    outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
    let passed = 0;
    answer.on("data", (piece: Buffer) => {
      passed += piece.length;
      outgoing.write(piece);
      if (passed > limitBytes) outgoing.destroy();
    });
    answer.on("end", () => outgoing.end());
    answer.on("error", () => outgoing.destroy());
  });
  incoming.pipe(onward);
}
