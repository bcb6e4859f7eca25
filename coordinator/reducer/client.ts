import { Worker } from "node:worker_threads";
import { hostPort } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { catalogued, ThreadClient } from "#lib/core/thread-client";
import { type ShardArrays, zeroArrays } from "#lib/core/shard-arrays";
import type {
  ShardAnswer,
  ShardCommand,
  ShardNotice,
  ShardStats,
} from "#lib/wire/reducer-messages";
import type { ElementRange } from "#lib/core/parameter-layout";
import {
  rangeOf,
  type ShardHandle,
  type ShardSource,
  type StartShardOptions,
} from "#coordinator/shards";
import { CalledShard } from "./called-shard.js";
import {
  receivedBytesIndex,
  type ShardReady,
  type ShardThreadCommand,
  type ShardThreadOptions,
  sentBytesIndex,
} from "./thread-protocol.js";

type ShardThreadClient = ThreadClient<ShardReady, ShardThreadCommand, ShardAnswer, ShardNotice>;

/**
 * A reducer shard in a thread of this process, with its own gRPC server and port.
 *
 * Calls that fail reject with the shard's error; when the thread dies they reject with
 * E_SHARD_FAILED, and so does every later call.
 */
export class ReducerShard extends CalledShard implements ShardHandle {
  /** host:port at which workers push gradients and pull parameters. */
  readonly address: string;
  readonly #thread: ShardThreadClient;
  readonly #range: ElementRange;
  readonly #arrays: ShardArrays;
  readonly #transferredBytes: BigInt64Array;

  private constructor(thread: ShardThreadClient, options: ShardThreadOptions, ready: ShardReady) {
    super(options.shardIndex);
    this.#thread = thread;
    this.#range = rangeOf(options);
    this.#arrays = ready.arrays;
    this.#transferredBytes = options.transferredBytes;
    this.address = hostPort(options.listenHost, ready.port);
  }

  /**
   * Starts the thread and its server; resolves when its memory is there and its port is open.
   * @throws E_SHARD_TOO_LARGE, E_INSECURE_BIND, E_LISTEN_FAILED, E_SHARD_FAILED
   */
  static async start(options: StartShardOptions): Promise<ReducerShard> {
    const transferredBytes = new BigInt64Array(new SharedArrayBuffer(16));
    const { shardIndex } = options;
    const { frozen, ...rest } = options;
    const threadOptions: ShardThreadOptions = {
      ...rest,
      transferredBytes,
      frozen: await frozen?.wireRange(),
    };
    const worker = new Worker(new URL("./shard-thread.js", import.meta.url), {
      name: `shard-${shardIndex}`,
      workerData: threadOptions,
    });
    const failed = (reason: string) => new LockstepError("E_SHARD_FAILED", { shardIndex, reason });
    const thread: ShardThreadClient = new ThreadClient(worker, {
      failed: (error) => catalogued(error) ?? failed(error.stack || error.message),
      died: (cause) =>
        failed(typeof cause === "number" ? `exit code ${cause}` : (cause.stack ?? cause.message)),
    });
    return new ReducerShard(thread, threadOptions, await thread.started());
  }

  /** The shard's arrays on memory shared with the thread; it outlives the thread. */
  get memory(): ShardArrays {
    return this.#arrays;
  }

  async load({ fill }: ShardSource): Promise<void> {
    await this.ask({ kind: "startOver" }, "done");
    await fill({ range: this.#range, ...this.#arrays });
  }

  /** Called once if the thread dies. */
  onFailure(callback: (error: unknown) => void): void {
    this.#thread.onDeath(callback);
  }

  /**
   * Copies the arrays, between two steps.
   * @param into an earlier snapshot that nobody needs any more: fresh memory costs more than the copy
   */
  async snapshot(into?: ShardArrays): Promise<ShardArrays> {
    const { masters, states } = this.#arrays;
    const sizes = Object.entries(states).map(([slot, { length }]) => [slot, length] as const);
    const target = into ?? zeroArrays(masters.length, sizes);
    await this.#thread.call({ kind: "snapshot", into: target });
    return target;
  }

  /** Payload bytes since the start. */
  stats(): ShardStats {
    return {
      receivedBytes: Number(Atomics.load(this.#transferredBytes, receivedBytesIndex)),
      sentBytes: Number(Atomics.load(this.#transferredBytes, sentBytesIndex)),
    };
  }

  protected async call(command: ShardCommand): Promise<ShardAnswer> {
    return this.#thread.call(command);
  }

  protected onNotice(callback: (notice: ShardNotice) => void): void {
    this.#thread.onNotice(callback);
  }

  /** Closes the server, cutting calls that do not end, and ends the thread. */
  async close(): Promise<void> {
    await this.#thread.close({ kind: "close" });
  }
}

/** Starts a shard in a thread of this process. */
export async function startShardThread(options: StartShardOptions): Promise<ReducerShard> {
  return ReducerShard.start(options);
}
