import type { ServerHttp2Stream } from "node:http2";

/** gRPC puts a flag and a length before each message. */
const prefixBytes = 5;
const sweepMs = 1_000;

interface Unfinished {
  readonly stream: ServerHttp2Stream;
  /** Of its call's method. */
  readonly path: string;
  readonly prefix: Buffer;
  numPrefixBytes: number;
  /** Of the message that has begun. */
  heldBytes: number;
  missingBytes: number;
  /** Since bytes came. */
  numIdleSweeps: number;
  readonly onWhole: () => void;
}

interface UnfinishedOptions {
  /** Bytes that all may hold. */
  readonly budgetBytes: number;
  readonly idleMs: number;
  /** @param path of the method that the stream calls */
  readonly giveUp: (stream: ServerHttp2Stream, path: string) => void;
}

/**
 * Messages whose end has not come: grpc-js keeps their bytes. All together have a budget, of which the oldest
 * pays: an honest message is there within moments. One of which nothing more comes is given up.
 */
export class UnfinishedMessages {
  readonly #options: UnfinishedOptions;
  /** The one that began first comes first. */
  readonly #begun = new Set<Unfinished>();
  readonly #sweeper: NodeJS.Timeout;
  #heldBytes = 0;

  constructor(options: UnfinishedOptions) {
    this.#options = options;
    this.#sweeper = setInterval(() => this.#sweep(), sweepMs);
    this.#sweeper.unref();
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /**
   * Counts what a stream brings; it is read when its reader reads.
   * @param onWhole called when a message is there
   */
  watch(stream: ServerHttp2Stream, path: string, onWhole: () => void = () => {}): void {
    const message: Unfinished = {
      stream,
      path,
      prefix: Buffer.alloc(prefixBytes),
      numPrefixBytes: 0,
      heldBytes: 0,
      missingBytes: 0,
      numIdleSweeps: 0,
      onWhole,
    };
    stream.on("data", (chunk: Buffer) => this.#count(message, chunk));
    stream.once("close", () => this.#end(message));
  }

  close(): void {
    clearInterval(this.#sweeper);
  }

  #count(message: Unfinished, chunk: Buffer): void {
    message.numIdleSweeps = 0;
    let at = 0;
    while (at < chunk.length) {
      if (message.numPrefixBytes < prefixBytes) {
        const end = Math.min(chunk.length, at + prefixBytes - message.numPrefixBytes);
        this.#begun.add(message);
        message.numPrefixBytes += chunk.copy(message.prefix, message.numPrefixBytes, at, end);
        at = end;
        if (message.numPrefixBytes < prefixBytes) return;
        message.missingBytes = message.prefix.readUInt32BE(1);
      }
      const taken = Math.min(message.missingBytes, chunk.length - at);
      at += taken;
      message.missingBytes -= taken;
      if (message.missingBytes === 0) {
        this.#end(message);
        message.onWhole();
      } else {
        message.heldBytes += taken;
        this.#heldBytes += taken;
      }
    }
    while (this.#heldBytes > this.#options.budgetBytes) {
      const [oldest] = this.#begun;
      if (oldest === undefined) return;
      this.#end(oldest);
      this.#options.giveUp(oldest.stream, oldest.path);
    }
  }

  #end(message: Unfinished): void {
    this.#begun.delete(message);
    this.#heldBytes -= message.heldBytes;
    message.heldBytes = 0;
    message.numPrefixBytes = 0;
  }

  #sweep(): void {
    const maxSweeps = this.#options.idleMs / sweepMs;
    for (const message of [...this.#begun]) {
      // Nothing can come of what is not read.
      if (message.stream.isPaused() || ++message.numIdleSweeps <= maxSweeps) continue;
      this.#end(message);
      this.#options.giveUp(message.stream, message.path);
    }
  }
}
