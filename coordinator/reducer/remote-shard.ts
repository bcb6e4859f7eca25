import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import { type ErrorCode, isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { ElementRange } from "#lib/core/parameter-layout";
import { openOptimizer, type Update } from "#lib/optim/index";
import { ReducerClient } from "#lib/wire/reducer-client";
import type {
  ArrivedGroup,
  OpenShard,
  ShardAnswer,
  ShardCommand,
  ShardNotice,
  ShardStats,
} from "#lib/wire/reducer-messages";
import type { KeptElsewhere } from "#coordinator/kept-elsewhere";
import {
  rangeOf,
  type ShardHandle,
  type ShardSource,
  type StartShard,
  type StartShardOptions,
} from "#coordinator/shards";
import { CalledShard } from "./called-shard.js";
import { RemoteArray } from "./remote-array.js";
import { mastersArray, RemoteLoad } from "./remote-load.js";
import { RemoteSave } from "./remote-save.js";

interface RemoteShardOptions {
  /** host:port at which coordinator and workers call it. */
  readonly address: string;
  /** What the run's coordinators show, and nobody else. */
  readonly secret: string;
  /** How long it may not answer before it counts as lost. */
  readonly timeoutMs: number;
  /** A line for a person. */
  readonly note: (text: string) => void;
  /** Whether workers call it as it is named here, wherever they called the coordinator. @default true */
  readonly isElsewhere?: boolean;
}

/** The arithmetic of a large shard takes seconds, files that it reads minutes; a dead connection is known earlier. */
const callTimeoutMs = 600_000;
/** A slow disk or store takes its time for some gigabytes, and a call that is made again writes them again. */
const saveTimeoutMs = 24 * 3_600_000;
const retryMs = 200;
/** A process that is not there is told of after so long, and then again after so many times as long. */
const firstTellMs = 10_000;
const tellAgainFactor = 4;

/** Nobody is there, or the connection broke: the same call is made again. */
const mayPass = (error: unknown): boolean =>
  isLockstepError(error) && (error.code === "E_RPC_UNAVAILABLE" || error.code === "E_RPC_TIMEOUT");

/** The process was started anew, failed in what it was asked for, or answers what no reducer does. */
const lossCodes: readonly string[] = [
  ...(["E_SHARD_NOT_OPEN", "E_SHARD_FAILED", "E_RPC_FAILED"] as const),
] satisfies ErrorCode[];

/**
 * A reducer shard in another process. Calls go out one after the other; where the connection breaks a call is made
 * again, which the process knows. When it does not answer for `timeoutMs`, or was started anew, the shard is lost.
 */
class RemoteShard extends CalledShard implements ShardHandle {
  readonly address: string;
  readonly isElsewhere: boolean;
  readonly #client: ReducerClient;
  readonly #files: RemoteSave;
  readonly #options: StartShardOptions;
  readonly #remote: RemoteShardOptions;
  readonly #range: ElementRange;
  readonly #request: OpenShard;
  readonly #onNotice: ((notice: ShardNotice) => void)[] = [];
  readonly #onFailure: ((error: unknown) => void)[] = [];
  readonly #end = new AbortController();
  /** By lease: what has come of the step in progress. A stream that is opened again repeats it. */
  readonly #arrived = new Map<number, ArrivedGroup>();
  #last: Promise<unknown> = Promise.resolve();
  #failure: unknown;
  /** Since when nobody answers. */
  #silentSinceMs: number | undefined;
  /** How long it may be silent before that is told of. */
  #tellAfterMs = firstTellMs;

  private constructor(options: StartShardOptions, remote: RemoteShardOptions) {
    super(options.shardIndex);
    this.#options = options;
    this.#remote = remote;
    this.address = remote.address;
    this.isElsewhere = remote.isElsewhere ?? true;
    this.#range = rangeOf(options);
    const { shardIndex, numShards, layout, optimizer, gradientGroups, security, life } = options;
    this.#request = {
      ...{ shardIndex, numShards, gradientGroups },
      layoutJson: JSON.stringify(layout),
      frozenJson: options.frozen === undefined ? "" : JSON.stringify(options.frozen.layout),
      optimizerJson: JSON.stringify(optimizer),
    };
    this.#client = new ReducerClient({
      ...{ address: remote.address, security },
      pass: { ...life, workerId: "", secret: remote.secret },
    });
    this.#files = new RemoteSave({
      ...{ shardIndex, address: remote.address, note: remote.note },
      call: (command) => this.#beside(command, saveTimeoutMs),
    });
  }

  /**
   * Calls the process until it is there, and gives it the shard, or takes over the one that it has.
   *
   * @throws E_SHARD_LOST where it is not there in time; E_STALE_COORDINATOR, E_SHARD_TOO_LARGE
   */
  static async start(options: StartShardOptions, remote: RemoteShardOptions): Promise<RemoteShard> {
    const shard = new RemoteShard(options, remote);
    const giveUp = (): void => void shard.close();
    options.signal?.addEventListener("abort", giveUp);
    if (options.signal?.aborted === true) giveUp();
    try {
      await shard.#untilAnswered(() =>
        shard.#client.open(shard.#request, callTimeoutMs, shard.#end.signal),
      );
    } catch (error) {
      shard.#client.close();
      throw error;
    } finally {
      options.signal?.removeEventListener("abort", giveUp);
    }
    void shard.#watch();
    return shard;
  }

  /** @throws E_REDUCER_FILES where the process reads other files than this one, or none */
  async load(source: ShardSource): Promise<void> {
    await this.ask({ kind: "startOver" }, "done");
    const call = (command: ShardCommand): Promise<ShardAnswer> => this.call(command);
    await new RemoteLoad({ ...this.#options, address: this.address, call }).load(source);
  }

  override async openStep(step: number): Promise<void> {
    await super.openStep(step);
    this.#arrived.clear();
  }

  override async apply(step: number, update: Update): Promise<void> {
    await super.apply(step, this.#ofOwnTensors(update));
  }

  override async measure(...[step, measurement]: Parameters<CalledShard["measure"]>) {
    const update = this.#ofOwnTensors(measurement.update);
    return super.measure(step, { ...measurement, update });
  }

  /** What it keeps, read as it is asked for: it has to stay as it is meanwhile. */
  get kept(): KeptElsewhere {
    const { start, end } = this.#range;
    const { slots, packing } = openOptimizer(this.#options.optimizer);
    const array = (name: string, elementsOfOne = 1): RemoteArray =>
      new RemoteArray(
        async (offset, numBytes) => this.#read({ kind: "read", array: name, offset, numBytes }),
        0,
        (end - start) / elementsOfOne,
      );
    return {
      masters: array(mastersArray),
      states: Object.fromEntries(slots.map((slot) => [slot, array(slot, packing[slot])])),
      files: this.#files,
    };
  }

  async stats(): Promise<ShardStats> {
    return (await this.ask({ kind: "stats" }, "stats")).stats;
  }

  /** Also called with what is here already of the step in progress. */
  override onArrived(callback: (arrived: ArrivedGroup) => void): void {
    super.onArrived(callback);
    for (const arrived of this.#arrived.values()) callback(arrived);
  }

  onFailure(callback: (error: unknown) => void): void {
    this.#onFailure.push(callback);
    if (this.#failure !== undefined) callback(this.#failure);
  }

  /** @param isOver the run is: the process ends. Otherwise it keeps what it has for a coordinator that comes back */
  async close(isOver = false): Promise<void> {
    if (isOver && this.#failure === undefined) await this.call({ kind: "finish" }).catch(() => {});
    this.#failure ??= new LockstepError("E_CLOSED", { what: `shard ${this.shardIndex}` });
    this.#end.abort();
    this.#client.close();
  }

  protected async call(command: ShardCommand): Promise<ShardAnswer> {
    const answer = this.#last.then(() =>
      this.#untilAnswered(() => this.#client.call(command, callTimeoutMs, this.#end.signal)),
    );
    this.#last = answer.catch(() => {});
    return answer;
  }

  protected onNotice(callback: (notice: ShardNotice) => void): void {
    this.#onNotice.push(callback);
  }

  /** What is told of tensors that the shard has no part of stays here. */
  #ofOwnTensors({ given, ...update }: Update): Update {
    if (given === undefined) return update;
    const { start, end } = this.#range;
    const { tensors } = this.#options.layout;
    const none = new Float32Array();
    const own = given.map((values, tensor) => {
      const slot = tensors[tensor];
      return slot !== undefined && slot.offset < end && slot.offset + slot.size > start
        ? values
        : none;
    });
    return { ...update, given: own };
  }

  /** Calls until there is an answer. @throws E_SHARD_LOST where nobody gives one in time, or the shard is gone */
  async #untilAnswered<T>(call: () => Promise<T>): Promise<T> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      try {
        const answer = await call();
        this.#heard();
        return answer;
      } catch (error) {
        // Closed, or lost by another call.
        if (this.#failure !== undefined) throw this.#failure;
        if (!mayPass(error)) throw this.#fatal(error) ?? error;
        this.#silentSinceMs ??= awakeMs();
        const silentMs = awakeMs() - this.#silentSinceMs;
        const { message } = error as Error;
        if (silentMs >= this.#remote.timeoutMs) throw this.#lose(message);
        if (silentMs >= this.#tellAfterMs) this.#tellSilence(silentMs, message);
      }
      await delay(retryMs, undefined, { signal: this.#end.signal }).catch(() => {});
    }
  }

  #tellSilence(silentMs: number, reason: string): void {
    this.#tellAfterMs *= tellAgainFactor;
    const seconds = Math.round(silentMs / 1000);
    const { timeoutMs, note } = this.#remote;
    note(
      `reducer ${this.address} has not answered for ${seconds} s, and is lost after ${timeoutMs / 1000} s (reducer_timeout_ms): ${reason}`,
    );
  }

  #heard(): void {
    if (this.#tellAfterMs > firstTellMs) this.#remote.note(`reducer ${this.address} answers again`);
    this.#silentSinceMs = undefined;
    this.#tellAfterMs = firstTellMs;
  }

  /** Hears of what happens there for as long as the shard is not closed. */
  async #watch(): Promise<void> {
    while (this.#failure === undefined) {
      try {
        await this.#untilAnswered(() =>
          this.#client.watch((notice) => this.#tell(notice), this.#end.signal),
        );
      } catch (error) {
        // Who hears nothing of a shard has lost it, whatever that came from.
        this.#lose(error instanceof Error ? error.message : String(error));
        return;
      }
      await delay(retryMs, undefined, { signal: this.#end.signal }).catch(() => {});
    }
  }

  #tell(notice: ShardNotice): void {
    this.#heard();
    if (notice.type === "arrived") {
      if (this.#arrived.has(notice.arrived.lease)) return;
      this.#arrived.set(notice.arrived.lease, notice.arrived);
    }
    for (const callback of this.#onNotice) callback(notice);
  }

  /** The error that ends the shard for this coordinator; undefined for one of a call alone. */
  #fatal(error: unknown): unknown {
    if (!isLockstepError(error)) return undefined;
    if (lossCodes.includes(error.code)) return this.#lose(error.message);
    return error.code === "E_STALE_COORDINATOR" ? this.#fail(error) : undefined;
  }

  #lose(reason: string): unknown {
    const { shardIndex, address } = this;
    const text = reason.replace(/\.$/, "");
    return this.#fail(new LockstepError("E_SHARD_LOST", { shardIndex, address, reason: text }));
  }

  #fail(error: unknown): unknown {
    if (this.#failure !== undefined) return this.#failure;
    this.#failure = error;
    this.#end.abort();
    for (const callback of this.#onFailure) callback(error);
    return error;
  }

  /** Beside other calls, which do not change what is read. */
  async #beside(command: ShardCommand, timeoutMs = callTimeoutMs): Promise<ShardAnswer> {
    return this.#untilAnswered(() => this.#client.call(command, timeoutMs, this.#end.signal));
  }

  async #read(command: Extract<ShardCommand, { readonly kind: "read" }>): Promise<Uint8Array> {
    const answer = await this.#beside(command);
    if (answer.kind === "values" && answer.values.length === command.numBytes) return answer.values;
    const reason = `${command.array} was asked for, and ${answer.kind} came`;
    throw new LockstepError("E_SHARD_FAILED", { shardIndex: this.shardIndex, reason });
  }
}

/** Starts the shards of a run in processes, by their order. */
export const startRemoteShards =
  (addresses: readonly string[], remote: Omit<RemoteShardOptions, "address">): StartShard =>
  async (options) => {
    const address = addresses[options.shardIndex];
    if (address === undefined) throw new RangeError(`There is no reducer ${options.shardIndex}`);
    return RemoteShard.start(options, { ...remote, address });
  };
