import { connect, createServer, type Server, type Socket } from "node:net";
import { drained } from "./drained.js";

interface Address {
  readonly host: string;
  readonly port: number;
}

/** A connection's two ends. */
interface Pair {
  readonly near: Socket;
  readonly far: Socket;
}

/** Carries the bytes of connections to another address, and does to them what networks do. */
export class TcpProxy {
  readonly #listen: Address;
  readonly #target: Address;
  readonly #onBytes: (numBytes: number) => void;
  readonly #pairs = new Set<Pair>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #server: Server | undefined;
  /** Nothing passes before this time of `performance.now()`. */
  #darkUntilMs = 0;
  #delayMs = 0;
  #isClosed = false;

  constructor(options: {
    readonly listen: Address;
    readonly target: Address;
    readonly onBytes: (numBytes: number) => void;
  }) {
    this.#listen = options.listen;
    this.#target = options.target;
    this.#onBytes = options.onBytes;
  }

  async open(): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, (near) => this.#carry(near));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#listen, resolve);
    });
  }

  /** Cuts every connection. */
  cut(): void {
    for (const { near, far } of [...this.#pairs]) {
      reset(near);
      reset(far);
    }
  }

  /** Connections stay open, and new ones are taken, but no byte arrives before the end; then all do. */
  goDark(forMs: number): void {
    this.#darkUntilMs = Math.max(this.#darkUntilMs, performance.now() + forMs);
  }

  /** Every byte comes later by so much, and in order. */
  delay(byMs: number, forMs: number): void {
    this.#delayMs += byMs;
    this.#later(forMs, () => {
      this.#delayMs -= byMs;
    });
  }

  /** The port refuses connections for a while; those that are open are cut. */
  goAway(forMs: number): void {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    server.close();
    this.cut();
    this.#later(forMs, () => {
      if (!this.#isClosed) void this.open();
    });
  }

  close(): void {
    this.#isClosed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#server?.close();
    this.cut();
  }

  #later(afterMs: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, afterMs);
    this.#timers.add(timer);
  }

  #carry(near: Socket): void {
    const far = connect({ ...this.#target, allowHalfOpen: true });
    const pair = { near, far };
    this.#pairs.add(pair);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.setNoDelay(true);
      void this.#forward(from, to);
      from.on("error", () => {});
      from.once("close", () => {
        this.#pairs.delete(pair);
        to.destroy();
      });
    }
  }

  async #forward(from: Socket, to: Socket): Promise<void> {
    try {
      for await (const bytes of from as AsyncIterable<Buffer>) {
        for (;;) {
          const waitMs = Math.max(this.#darkUntilMs - performance.now(), 0);
          if (waitMs === 0) break;
          await this.#pause(waitMs);
        }
        if (this.#delayMs > 0) await this.#pause(this.#delayMs);
        if (to.destroyed) return;
        if (!to.write(bytes)) await drained(to);
        this.#onBytes(bytes.length);
      }
      to.end();
    } catch {
      to.destroy();
    }
  }

  async #pause(forMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#later(forMs, resolve);
    });
  }
}

/** Node never closes a socket that is reset while it is being shut down, and spins at the end of the process. */
function reset(socket: Socket): void {
  if (socket.writableEnded && !socket.writableFinished) socket.destroy();
  else socket.resetAndDestroy();
}
