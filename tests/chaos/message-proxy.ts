import {
  type ClientHttp2Session,
  connect,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import { drained } from "./drained.js";
import type { Call, MessageAct } from "./schedule.js";

/** Node's own 64 KiB would make every push wait. */
const settings = { initialWindowSize: 8 * 1024 * 1024 };
/** What a message begins with: whether it is compressed, and its length. */
const prefixBytes = 5;

/**
 * Carries the calls of a gRPC service to another address and does to messages what TCP never does: repeats,
 * swaps, drops and changes them. Payloads pass here, not through shared memory.
 */
export class MessageProxy {
  readonly #server: Http2Server;
  readonly #target: string;
  readonly #listen: { readonly host: string; readonly port: number };
  readonly #take: (call: Call, nth: number) => MessageAct | undefined;
  readonly #sessions = new Set<{ destroy(): void }>();
  readonly #counts = new Map<string, number>();

  /** @param take asked for each call: what is done to it */
  constructor(options: {
    readonly listen: { readonly host: string; readonly port: number };
    readonly target: { readonly host: string; readonly port: number };
    readonly take: (call: Call, nth: number) => MessageAct | undefined;
  }) {
    this.#listen = options.listen;
    this.#target = `http://${options.target.host}:${options.target.port}`;
    this.#take = options.take;
    this.#server = createServer({ settings });
    this.#server.on("session", (near) => {
      const far = connect(this.#target, { settings });
      for (const [session, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sessions.add(session);
        session.on("error", () => {});
        session.once("close", () => {
          this.#sessions.delete(session);
          other.destroy();
        });
      }
      near.on("stream", (stream, headers) => {
        stream.on("error", () => {});
        void this.#carry(stream, headers, far).catch(() => stream.destroy());
      });
    });
  }

  async open(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(this.#listen, resolve);
    });
  }

  close(): void {
    this.#server.close();
    for (const session of [...this.#sessions]) session.destroy();
  }

  async #carry(
    near: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    far: ClientHttp2Session,
  ): Promise<void> {
    const name = (headers[":path"] ?? "").split("/").at(-1) ?? "";
    const nth = (this.#counts.get(name) ?? 0) + 1;
    this.#counts.set(name, nth);
    const is = this.#take(name as Call, nth);
    const { "lockstep-shared-ring": _ring, ...sent } = headers;
    if (is?.act === "hold") await new Promise((resolve) => setTimeout(resolve, is.forMs));
    if (near.destroyed || far.destroyed) {
      near.destroy();
      return;
    }
    const kept: Buffer[] | undefined = is?.act === "replay" ? [] : undefined;
    const call = far.request(sent, { endStream: false });
    call.on("error", () => {});
    near.once("close", () => call.close());
    const answered = is?.act === "lose-reply" ? swallow(near, call) : answer(near, call);
    // Whoever waits for it sees why it failed; the caller may still be sending.
    answered.catch(() => {});
    for await (const message of altered(messagesOf(near), is)) {
      kept?.push(message);
      if (call.destroyed) break;
      if (!call.write(message)) await drained(call);
    }
    if (!call.destroyed) call.end();
    await answered;
    if (kept === undefined || far.destroyed) return;
    const again = far.request(sent, { endStream: false });
    again.on("error", () => {});
    again.resume();
    for (const message of kept) again.write(message);
    again.end();
  }
}

type FarStream = ReturnType<ClientHttp2Session["request"]>;

/** Passes the answer on. */
async function answer(near: ServerHttp2Stream, call: FarStream): Promise<void> {
  call.on("response", (headers, flags) => {
    if (near.destroyed) return;
    // HTTP2_FLAG_END_STREAM: an answer of trailers alone.
    const isAll = (flags & 1) === 1;
    near.respond(headers, { endStream: isAll, waitForTrailers: !isAll });
    if (isAll) return;
    near.once("wantTrailers", () => {
      void trailers.then((each) => near.destroyed || near.sendTrailers(each ?? {}));
    });
  });
  const trailers = new Promise<IncomingHttpHeaders | undefined>((resolve) => {
    call.once("trailers", resolve);
    call.once("close", () => resolve(undefined));
  });
  for await (const bytes of call as AsyncIterable<Buffer>) {
    if (near.destroyed) return;
    if (!near.write(bytes)) await drained(near);
  }
  if (near.headersSent && !near.writableEnded) near.end();
  if (!near.headersSent) near.destroy();
}

/** Waits for the answer, and breaks the call instead of passing it on. */
async function swallow(near: ServerHttp2Stream, call: FarStream): Promise<void> {
  for await (const _bytes of call as AsyncIterable<Buffer>);
  near.destroy();
}

/** The messages of a stream, each with its prefix. */
async function* messagesOf(stream: ServerHttp2Stream): AsyncGenerator<Buffer> {
  let pending: Buffer = Buffer.alloc(0);
  for await (const bytes of stream as AsyncIterable<Buffer>) {
    pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes]);
    for (;;) {
      if (pending.length < prefixBytes) break;
      const end = prefixBytes + pending.readUInt32BE(1);
      if (pending.length < end) break;
      yield pending.subarray(0, end);
      pending = pending.subarray(end);
    }
  }
}

async function* altered(
  messages: AsyncIterable<Buffer>,
  is: MessageAct | undefined,
): AsyncGenerator<Buffer> {
  let index = 0;
  let held: Buffer | undefined;
  for await (const message of messages) {
    const isMeant = is !== undefined && "message" in is && is.message === index++;
    if (!isMeant) {
      yield message;
      if (held !== undefined) yield held;
      held = undefined;
    } else if (is.act === "duplicate") {
      yield message;
      yield message;
    } else if (is.act === "swap") {
      held = message;
    } else if (is.act === "corrupt") {
      const changed = Buffer.from(message);
      const at = changed.length - 1;
      changed.writeUInt8(changed.readUInt8(at) ^ 0x10, at);
      yield changed;
    }
  }
  if (held !== undefined) yield held;
}
