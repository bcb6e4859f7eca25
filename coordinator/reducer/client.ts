import { Worker } from "node:worker_threads";
import { hostPort } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { copyArrays, type ShardArrays, zeroArrays } from "#lib/core/shard-arrays";
import type { Update } from "#lib/optim/index";
import type { ShardHandle, ShardStats, StartShardOptions } from "#coordinator/shards";
import {
  fromPortable,
  receivedBytesIndex,
  type ShardCommand,
  type ShardMessage,
  type ShardRequest,
  type ShardThreadOptions,
  sentBytesIndex,
} from "./thread-protocol.js";

type GroupCompleteCallback = (step: number, group: number, workerId: string) => void;
type RpcCallback = (method: string, code: string, seconds: number) => void;

/**
 * A reducer shard in a thread of this process, with its own gRPC server and port.
 *
 * Calls that fail reject with the shard's error; when the thread dies they reject with
 * E_SHARD_FAILED, and so does every later call.
 */
export class ReducerShard implements ShardHandle {
  /** host:port at which workers push gradients and pull parameters. */
  readonly address: string;
  readonly #thread: Worker;
  readonly #shardIndex: number;
  readonly #arrays: ShardArrays;
  readonly #openStep: Int32Array;
  readonly #transferredBytes: BigInt64Array;
  readonly #pending = new Map<
    number,
    {
      readonly resolve: (value: Float64Array | undefined) => void;
      readonly reject: (error: LockstepError) => void;
    }
  >();
  readonly #groupCallbacks: GroupCompleteCallback[] = [];
  readonly #rpcCallbacks: RpcCallback[] = [];
  readonly #failureCallbacks: ((error: LockstepError) => void)[] = [];
  #nextId = 0;
  #failure: LockstepError | undefined;
  #isClosing = false;

  private constructor(
    thread: Worker,
    options: ShardThreadOptions,
    ready: { readonly port: number; readonly arrays: ShardArrays },
  ) {
    this.#thread = thread;
    this.#shardIndex = options.shardIndex;
    this.#arrays = ready.arrays;
    this.#openStep = options.openStep;
    this.#transferredBytes = options.transferredBytes;
    this.address = hostPort(options.listenHost, ready.port);
    thread.on("message", (message: ShardMessage) => this.#receive(message));
    thread.on("error", (error) => this.#fail(error.stack ?? error.message));
    thread.on("exit", (code) => this.#fail(`exit code ${code}`));
  }

  /**
   * Starts the thread and its server; resolves when its memory is there and its port is open.
   * @throws E_SHARD_TOO_LARGE, E_INSECURE_BIND, E_LISTEN_FAILED, E_SHARD_FAILED
   */
  static async start(options: StartShardOptions): Promise<ReducerShard> {
    const openStep = new Int32Array(new SharedArrayBuffer(4)).fill(-1);
    const transferredBytes = new BigInt64Array(new SharedArrayBuffer(16));
    const { shardIndex } = options;
    const threadOptions: ShardThreadOptions = { ...options, openStep, transferredBytes };
    const thread = new Worker(new URL("./shard-thread.js", import.meta.url), {
      name: `shard-${shardIndex}`,
      workerData: threadOptions,
    });
    try {
      return await new Promise<ReducerShard>((resolve, reject) => {
        const failed = (reason: string): void =>
          reject(new LockstepError("E_SHARD_FAILED", { shardIndex, reason }));
        thread.once("message", (message: ShardMessage) => {
          if (message.type === "ready") {
            resolve(new ReducerShard(thread, threadOptions, message));
          } else if (message.type === "failed") reject(fromPortable(message.error, shardIndex));
          else failed(`unexpected message ${message.type}`);
        });
        thread.once("error", (error) => failed(error.stack ?? error.message));
        thread.once("exit", (code) => failed(`exit code ${code}`));
      });
    } catch (error) {
      await thread.terminate();
      throw error;
    }
  }

  /** The shard's arrays on memory shared with the thread; it outlives the thread. */
  get memory(): ShardArrays {
    return this.#arrays;
  }

  /** Sets the arrays, before the first step; copied. */
  async load(arrays: ShardArrays): Promise<void> {
    copyArrays(arrays, this.#arrays);
  }

  /** Makes the masters of now available as `version`. */
  async publishInitial(version: number): Promise<void> {
    await this.#call({ kind: "publishInitial", version });
  }

  /** From now on pushes for this step are taken; the step before must have been applied or discarded. */
  openStep(step: number): void {
    if (step <= Atomics.load(this.#openStep, 0)) {
      throw new LockstepError("E_SHARD_STATE", {
        shardIndex: this.#shardIndex,
        call: `open step ${step}`,
        expected: `a step after ${Atomics.load(this.#openStep, 0)}`,
        got: `step ${step}`,
      });
    }
    Atomics.store(this.#openStep, 0, step);
  }

  /** Called when all bytes of a group are on this shard and their checksums were right. */
  onGroupComplete(callback: GroupCompleteCallback): void {
    this.#groupCallbacks.push(callback);
  }

  /** Called after each call that the shard's server has answered. */
  onRpc(callback: RpcCallback): void {
    this.#rpcCallbacks.push(callback);
  }

  /** Called once if the thread dies. */
  onFailure(callback: (error: LockstepError) => void): void {
    this.#failureCallbacks.push(callback);
  }

  /**
   * Sums the groups of the step, in group order.
   * @returns float64 sum of squares of each 65,536-element block of the range, in block order
   * @throws E_SHARD_STATE when a group is missing
   */
  async reduce(step: number): Promise<{ readonly blockSumsOfSquares: Float64Array }> {
    const blockSumsOfSquares = await this.#call({ kind: "reduce", step });
    if (blockSumsOfSquares === undefined) {
      throw fromPortable({ reason: "reduce gave no sums" }, this.#shardIndex);
    }
    return { blockSumsOfSquares };
  }

  /** Updates the masters with the step's gradient and publishes them under the update's number. */
  async apply(step: number, update: Update): Promise<void> {
    await this.#call({ kind: "apply", step, update });
  }

  /** Forgets the gradients of a step, reduced or not; masters and versions stay. */
  async discard(step: number): Promise<void> {
    await this.#call({ kind: "discard", step });
  }

  /**
   * Copies the arrays, between two steps.
   * @param into an earlier snapshot that nobody needs any more: fresh memory costs more than the copy
   */
  async snapshot(into?: ShardArrays): Promise<ShardArrays> {
    const { masters, states } = this.#arrays;
    const target = into ?? zeroArrays(masters.length, Object.keys(states));
    await this.#call({ kind: "snapshot", into: target });
    return target;
  }

  /** Payload bytes since the start. */
  stats(): ShardStats {
    return {
      receivedBytes: Number(Atomics.load(this.#transferredBytes, receivedBytesIndex)),
      sentBytes: Number(Atomics.load(this.#transferredBytes, sentBytesIndex)),
    };
  }

  /** Closes the server, cutting calls that do not end, and ends the thread. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#failure === undefined) await this.#call({ kind: "close" }).catch(() => {});
    await this.#thread.terminate();
  }

  async #call(command: ShardCommand): Promise<Float64Array | undefined> {
    if (this.#failure !== undefined) throw this.#failure;
    const request: ShardRequest = { id: this.#nextId++, command };
    return new Promise((resolve, reject) => {
      this.#pending.set(request.id, { resolve, reject });
      this.#thread.postMessage(request);
    });
  }

  #receive(message: ShardMessage): void {
    switch (message.type) {
      case "reply":
      case "error": {
        const pending = this.#pending.get(message.id);
        this.#pending.delete(message.id);
        if (message.type === "reply") pending?.resolve(message.value);
        else pending?.reject(fromPortable(message.error, this.#shardIndex));
        return;
      }
      case "groupComplete":
        for (const callback of this.#groupCallbacks) {
          callback(message.step, message.group, message.workerId);
        }
        return;
      case "rpc":
        for (const callback of this.#rpcCallbacks) {
          callback(message.method, message.code, message.seconds);
        }
        return;
      case "ready":
      case "failed":
        return;
    }
  }

  #fail(reason: string): void {
    if (this.#failure !== undefined) return;
    const error = new LockstepError("E_SHARD_FAILED", { shardIndex: this.#shardIndex, reason });
    this.#failure = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    if (!this.#isClosing) for (const callback of this.#failureCallbacks) callback(error);
  }
}

/** Starts a shard in a thread of this process. */
export async function startShardThread(options: StartShardOptions): Promise<ReducerShard> {
  return ReducerShard.start(options);
}
