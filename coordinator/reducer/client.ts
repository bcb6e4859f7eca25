import { Worker } from "node:worker_threads";
import { hostPort } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { catalogued, ThreadClient } from "#lib/core/thread-client";
import { type ShardArrays, zeroArrays } from "#lib/core/shard-arrays";
import type { Measurement, SumWindow, Update } from "#lib/optim/index";
import type { ElementRange } from "#lib/core/parameter-layout";
import {
  type RefusedPush,
  rangeOf,
  type ShardHandle,
  type ShardSource,
  type ShardStats,
  type StartShardOptions,
} from "#coordinator/shards";
import type { FenceChange } from "./fence.js";
import type { ArrivedGroup } from "./shard-state.js";
import type { ShardStatus } from "./shard-status.js";
import {
  type PenalisedSums,
  receivedBytesIndex,
  type ShardAnswer,
  type ShardCommand,
  type ShardLimitNotice,
  type ShardNotice,
  type ShardReady,
  type ShardThreadOptions,
  sentBytesIndex,
} from "./thread-protocol.js";

type ShardThreadClient = ThreadClient<ShardReady, ShardCommand, ShardAnswer, ShardNotice>;

type ArrivedCallback = (arrived: ArrivedGroup) => void;
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
  readonly #thread: ShardThreadClient;
  readonly #shardIndex: number;
  readonly #range: ElementRange;
  readonly #arrays: ShardArrays;
  readonly #transferredBytes: BigInt64Array;

  private constructor(thread: ShardThreadClient, options: ShardThreadOptions, ready: ShardReady) {
    this.#thread = thread;
    this.#shardIndex = options.shardIndex;
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
    const threadOptions: ShardThreadOptions = { ...options, transferredBytes };
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
    await this.#thread.call({ kind: "startOver" });
    await fill({ range: this.#range, ...this.#arrays });
  }

  async status(): Promise<ShardStatus> {
    const status = await this.#thread.call({ kind: "status" });
    if (status === undefined || !("stage" in status)) throw this.#noAnswer("status");
    return status;
  }

  /** Makes the masters of now available as `version`. */
  async publishInitial(version: number): Promise<void> {
    await this.#thread.call({ kind: "publishInitial", version });
  }

  /** Who may send what; holds for every call that comes after the answer. */
  async changeFence(change: FenceChange): Promise<void> {
    await this.#thread.call({ kind: "fence", change });
  }

  async openStep(step: number): Promise<void> {
    await this.#thread.call({ kind: "openStep", step });
  }

  /** Forgets what has come of the step in progress: it is sent again, under other leases. @throws E_SHARD_STATE */
  async restartStep(step: number): Promise<void> {
    await this.#thread.call({ kind: "restartStep", step });
  }

  /** Called when all bytes of a lease's group are on this shard and their checksums were right. */
  onArrived(callback: ArrivedCallback): void {
    this.#thread.onNotice((notice) => {
      if (notice.type === "arrived") callback(notice.arrived);
    });
  }

  /** Called when a push was refused for whose it is. */
  onRefused(callback: (refused: RefusedPush) => void): void {
    this.#thread.onNotice((notice) => {
      if (notice.type === "refused") callback(notice);
    });
  }

  /** Called after each call that the shard's server has answered. */
  onRpc(callback: RpcCallback): void {
    this.#thread.onNotice((notice) => {
      if (notice.type === "rpc") callback(notice.method, notice.code, notice.seconds);
    });
  }

  onLimit(callback: (notice: ShardLimitNotice) => void): void {
    this.#thread.onNotice((notice) => {
      if (notice.type === "connectionsRefused" || notice.type === "pushesWaiting") callback(notice);
    });
  }

  /** Called once if the thread dies. */
  onFailure(callback: (error: unknown) => void): void {
    this.#thread.onDeath(callback);
  }

  /**
   * Sums the groups of the step, in group order.
   * @returns float64 sum of squares of each 65,536-element block of the range, in block order
   * @throws E_SHARD_STATE when a group is missing
   */
  async reduce(step: number): Promise<{ readonly blockSumsOfSquares: Float64Array }> {
    const blockSumsOfSquares = await this.#thread.call({ kind: "reduce", step });
    if (!(blockSumsOfSquares instanceof Float64Array)) throw this.#noAnswer("reduce");
    return { blockSumsOfSquares };
  }

  /** Adds the gradient of EWC's penalty to the step's. @throws E_SHARD_STATE before `reduce` */
  async penalise(step: number, factor: number): Promise<PenalisedSums> {
    const sums = await this.#thread.call({ kind: "penalise", step, factor });
    if (sums === undefined || !("distances" in sums)) throw this.#noAnswer("penalise");
    return sums;
  }

  /** Adds the step's sum of squared gradients to F. @throws E_SHARD_STATE before `reduce` */
  async keepSquares(step: number, first: boolean): Promise<void> {
    await this.#thread.call({ kind: "keepSquares", step, first });
  }

  /** Sums of F, of blocks in block order. */
  async fisherSums(): Promise<Float64Array> {
    const sums = await this.#thread.call({ kind: "fisherSums" });
    if (!(sums instanceof Float64Array)) throw this.#noAnswer("fisherSums");
    return sums;
  }

  /** Scales F, and makes the masters the anchor. @throws E_SHARD_STATE during a step */
  async finishFisher(scale: number): Promise<void> {
    await this.#thread.call({ kind: "finishFisher", scale });
  }

  /**
   * A round of the optimizer's statistics over the step's gradient.
   * @throws E_SHARD_STATE before `reduce`
   */
  async measure(step: number, measurement: Measurement): Promise<readonly SumWindow[]> {
    const windows = await this.#thread.call({ kind: "measure", step, measurement });
    if (!Array.isArray(windows)) throw this.#noAnswer("measure");
    return windows as readonly SumWindow[];
  }

  /** Updates the masters with the step's gradient and publishes them under the update's number. */
  async apply(step: number, update: Update): Promise<void> {
    await this.#thread.call({ kind: "apply", step, update });
  }

  /** Forgets the gradients of a step, reduced or not; masters and versions stay. */
  async discard(step: number): Promise<void> {
    await this.#thread.call({ kind: "discard", step });
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

  #noAnswer(call: string): LockstepError {
    const reason = `${call} gave no sums`;
    return new LockstepError("E_SHARD_FAILED", { shardIndex: this.#shardIndex, reason });
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
