import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import { shardRanges } from "#lib/core/parameter-layout";
import type { ShardArrays, ShardPiece } from "#lib/core/shard-arrays";
import type { LoadValues } from "#lib/core/wire-space";
import {
  type ChosenOptimizer,
  type MeasuredShards,
  type Measurement,
  type PenalisedShards,
  type SumWindow,
  type Update,
  type UpdatedShards,
} from "#lib/optim/index";
import type {
  ArrivedGroup,
  FenceChange,
  RefusedPush,
  ShardFiles,
  ShardLimitNotice,
  ShardPeer,
  ShardStats,
  ShardStatus,
} from "#lib/wire/reducer-messages";
import type { WireSecurity } from "#lib/wire/security";
import { frozenOf } from "./frozen-range.js";
import { copiedState, type HeldState, LentState, snapshotBytes } from "./held-state.js";
import type { KeptElsewhere } from "./kept-elsewhere.js";
import type { Snapshot } from "./options.js";
import type { RunLife } from "./reducer/fence.js";
import { ShardPeers } from "./shard-peers.js";

/**
 * What the rounds need of a reducer shard, wherever it runs.
 *
 * Every call may be repeated, by a coordinator that did not hear the answer and by one that goes on where another died:
 * what is done is not done again, and what was answered of a step is answered again until the next step is opened.
 */
export interface ShardHandle {
  /** host:port at which workers push and pull. */
  readonly address: string;
  /** Whether workers call it at that address wherever they called the coordinator. @default false */
  readonly isElsewhere?: boolean;
  /** The shard's own arrays, where its memory is shared with this process. */
  readonly memory?: ShardArrays | undefined;
  /** What the shard keeps, where it is read from another process; it changes with the next update. */
  readonly kept?: KeptElsewhere | undefined;
  /** Fills the range; what it held before, of whatever step, is forgotten. */
  load(source: ShardSource): Promise<void>;
  publishInitial(version: number): Promise<void>;
  /** Where the shard is. */
  status(): Promise<ShardStatus>;
  /** Who may send what; holds for every call that comes after the answer. */
  changeFence(change: FenceChange): Promise<void>;
  /** From now on pushes for this step are taken. */
  openStep(step: number): Promise<void>;
  /** Forgets what has come of the step in progress, summed or not. */
  restartStep(step: number): Promise<void>;
  onArrived(callback: (arrived: ArrivedGroup) => void): void;
  /** Called when a push was refused for whose it is. */
  onRefused(callback: (refused: RefusedPush) => void): void;
  /**
   * Sums the groups of the step in group order.
   * @returns undefined where groups that had arrived are lost, and the step has to be restarted
   */
  reduce(step: number): Promise<{ readonly blockSumsOfSquares: Float64Array } | undefined>;
  /** In place of `reduce`: the sum that a shard of the same range has. */
  takeSum(step: number, peer: ShardPeer): Promise<{ readonly blockSumsOfSquares: Float64Array }>;
  /** In place of `load`: all that a shard of the same range keeps, which is at `status`, between two steps. */
  takeState(status: ShardStatus, peer: ShardPeer): Promise<void>;
  /** SHA-256 of all that it keeps. */
  digest(): Promise<string>;
  /** Compares copies, where there are some. @throws E_SHARD_DIVERGED */
  verify?(): Promise<void>;
  /** Adds the gradient of EWC's penalty, once, after `reduce`: sums of blocks as PenalisedShards has them. */
  penalise(
    step: number,
    factor: number,
  ): Promise<{ readonly squares: Float64Array; readonly distances: Float64Array }>;
  /** Adds the step's sum, which is of squared gradients, to F, after `reduce`; the step is over. */
  keepSquares(step: number, first: boolean): Promise<void>;
  /** Sums of F, of blocks. */
  fisherSums(): Promise<Float64Array>;
  /** Scales F, and makes the masters the anchor; steps are counted from 0 again. */
  finishFisher(scale: number): Promise<void>;
  /** Adds up what the optimizer needs of whole tensors, after `reduce`. */
  measure(step: number, measurement: Measurement): Promise<readonly SumWindow[]>;
  /** Updates the masters, once, and publishes them under the update's number. */
  apply(step: number, update: Update): Promise<void>;
  discard(step: number): Promise<void>;
  /** Copies the arrays, where they are in this process; `into` is an earlier copy that nobody needs any more. */
  snapshot?(into?: ShardArrays): Promise<ShardArrays | undefined>;
  /** Bytes since the start. */
  stats(): Promise<ShardStats> | ShardStats;
  onFailure(callback: (error: unknown) => void): void;
  /** Called when the shard has another address, and groups of the step in progress that had arrived are lost. */
  onMoved?(callback: () => void): void;
  onRpc(callback: (method: string, code: string, seconds: number) => void): void;
  onLimit(callback: (notice: ShardLimitNotice) => void): void;
  /** @param isOver the run is: what the shard has is not asked for again */
  close(isOver?: boolean): Promise<void>;
}

/** Where the weights of a shard's range come from, and what the optimizer keeps of them. */
export interface ShardSource {
  /** Fills zeros, of any range of whole blocks. */
  readonly fill: (piece: ShardPiece) => Promise<void>;
  /** What of it lies in files that a shard in another process reads by itself. */
  readonly files?: ShardFiles;
  /** Weights that stay as they are, for a shard in another process. */
  readonly frozen?: { readonly layout: ParameterLayout; readonly load: LoadValues };
}

/** Which shard, of how many of a flat space. */
export interface RangeOf {
  readonly shardIndex: number;
  readonly numShards: number;
  readonly layout: ParameterLayout;
}

export interface StartShardOptions extends RangeOf {
  readonly optimizer: ChosenOptimizer;
  readonly listenHost: string;
  /** 0 takes any free port. @default 0 */
  readonly listenPort?: number;
  readonly gradientGroups: number;
  readonly security: WireSecurity;
  /** Calls of another run or epoch are refused. */
  readonly life: RunLife;
  /** The shard is not wanted any more, where it has not started yet. */
  readonly signal?: AbortSignal;
  /** Of the weights that stay as they are; absent: there are none. */
  readonly frozen?: {
    readonly layout: ParameterLayout;
    /** The shard's range in wire form, on shared memory, for a shard of this process. */
    readonly wireRange: () => Promise<Uint8Array>;
  };
}

export type StartShard = (options: StartShardOptions) => Promise<ShardHandle>;

/** All shards of a job, called together. */
export class ShardGroup implements Omit<UpdatedShards, "reduce">, MeasuredShards {
  readonly #layout: ParameterLayout;
  readonly #shards: readonly ShardHandle[];
  readonly #peers: ShardPeers;
  /** What is saved from the shards' own memory. */
  #lent: LentState | undefined;

  private constructor(
    { layout, life }: Pick<StartShardOptions, "layout" | "life">,
    shards: readonly ShardHandle[],
  ) {
    this.#layout = layout;
    this.#shards = shards;
    this.#peers = new ShardPeers({ layout, life, shards, rangeOf: (shard) => this.#range(shard) });
  }

  static async start(
    start: StartShard,
    options: Omit<StartShardOptions, "shardIndex" | "listenPort" | "frozen"> & {
      readonly frozen?: {
        readonly layout: ParameterLayout;
        /** All of them, on shared memory. */
        readonly wireBytes: () => Promise<Uint8Array>;
      };
      /** Shard i listens on this port plus i; 0: each on any free port. */
      readonly firstPort?: number;
    },
  ): Promise<ShardGroup> {
    const { firstPort = 0, frozen, signal: unwanted, ...shared } = options;
    const failure = new AbortController();
    const signal = AbortSignal.any([failure.signal, unwanted].filter((one) => one !== undefined));
    const started = await Promise.allSettled(
      Array.from({ length: options.numShards }, (_, shardIndex) =>
        start({
          ...shared,
          signal,
          shardIndex,
          listenPort: firstPort === 0 ? 0 : firstPort + shardIndex,
          ...(frozen && {
            frozen: frozenOf(frozen, rangeOf({ ...options, layout: frozen.layout, shardIndex })),
          }),
        }).catch((error: unknown) => {
          // The others are not waited for: the first error is the reason.
          failure.abort(error);
          throw error;
        }),
      ),
    );
    const shards: ShardHandle[] = [];
    for (const result of started) if (result.status === "fulfilled") shards.push(result.value);
    if (failure.signal.aborted) {
      await Promise.allSettled(shards.map((shard) => shard.close()));
      throw failure.signal.reason;
    }
    return new ShardGroup(options, shards);
  }

  get count(): number {
    return this.#shards.length;
  }

  /** Whether some keep what they have in other processes. */
  get areElsewhere(): boolean {
    return this.#shards.some(({ kept }) => kept !== undefined);
  }

  /** @param rehost what workers call one of this process, where that is not its own address */
  addresses(rehost = (address: string): string => address): readonly string[] {
    return this.#shards.map(({ address, isElsewhere }) =>
      isElsewhere === true ? address : rehost(address),
    );
  }

  onArrived(callback: (shard: number, arrived: ArrivedGroup) => void): void {
    for (const [shard, handle] of this.#shards.entries()) {
      handle.onArrived((arrived) => callback(shard, arrived));
    }
  }

  onRefused(callback: (refused: RefusedPush) => void): void {
    for (const shard of this.#shards) shard.onRefused(callback);
  }

  async changeFence(change: FenceChange): Promise<void> {
    await this.#all((shard) => shard.changeFence(change));
  }

  onFailure(callback: (shard: number, error: unknown) => void): void {
    for (const [shard, handle] of this.#shards.entries()) {
      handle.onFailure((error) => callback(shard, error));
    }
  }

  /** Called when a shard has another address. */
  onMoved(callback: (shard: number) => void): void {
    for (const [shard, handle] of this.#shards.entries()) handle.onMoved?.(() => callback(shard));
  }

  onRpc(callback: (method: string, code: string, seconds: number) => void): void {
    for (const shard of this.#shards) shard.onRpc(callback);
  }

  onLimit(callback: (shard: number, notice: ShardLimitNotice) => void): void {
    for (const [shard, handle] of this.#shards.entries()) {
      handle.onLimit((notice) => callback(shard, notice));
    }
  }

  /** One shard of this process after the other, those of other processes at once. */
  async load(source: ShardSource, version: number): Promise<void> {
    const isHere = (shard: ShardHandle): boolean => shard.memory !== undefined;
    await Promise.all(
      this.#shards.filter((shard) => !isHere(shard)).map((shard) => shard.load(source)),
    );
    for (const shard of this.#shards.filter(isHere)) await shard.load(source);
    await this.#all((shard) => shard.publishInitial(version));
  }

  /** Where each shard is. */
  async status(): Promise<readonly ShardStatus[]> {
    return this.#all((shard) => shard.status());
  }

  async openStep(step: number): Promise<void> {
    await this.#all((shard) => shard.openStep(step));
  }

  async restartStep(step: number): Promise<void> {
    await this.#all((shard) => shard.restartStep(step));
  }

  /**
   * @returns fp64 sums of squares of all blocks of the flat space, in block order; undefined where a shard lost groups
   *   that had arrived, and the step has to be restarted
   */
  async reduce(step: number): Promise<Float64Array | undefined> {
    const reduced = await this.#all((shard) => shard.reduce(step));
    const sums = reduced.flatMap((sum) => (sum === undefined ? [] : [sum.blockSumsOfSquares]));
    if (sums.length < reduced.length) return undefined;
    return Float64Array.from(sums.flatMap((sum) => [...sum]));
  }

  async penalise(step: number, factor: number): ReturnType<PenalisedShards["penalise"]> {
    const sums = await this.#all((shard) => shard.penalise(step, factor));
    const joined = (of: "squares" | "distances"): Float64Array =>
      Float64Array.from(sums.flatMap((sum) => [...sum[of]]));
    return { squares: joined("squares"), distances: joined("distances") };
  }

  async keepSquares(step: number, first: boolean): Promise<void> {
    await this.#lent?.wanted();
    await this.#all((shard) => shard.keepSquares(step, first));
  }

  async fisherSums(): Promise<Float64Array> {
    const sums = await this.#all((shard) => shard.fisherSums());
    return Float64Array.from(sums.flatMap((sum) => [...sum]));
  }

  async finishFisher(scale: number): Promise<void> {
    await this.#lent?.wanted();
    await this.#all((shard) => shard.finishFisher(scale));
  }

  async measure(step: number, measurement: Measurement): Promise<readonly SumWindow[]> {
    await this.#lent?.wanted();
    return (await this.#all((shard) => shard.measure(step, measurement))).flat();
  }

  async apply(step: number, update: Update): Promise<void> {
    await this.#lent?.wanted();
    await this.#all((shard) => shard.apply(step, update));
  }

  async discard(step: number): Promise<void> {
    await this.#all((shard) => shard.discard(step));
  }

  /**
   * What the shards keep, until it is released: a copy, or, and where they are in other processes always, that itself,
   * and what would change it waits.
   *
   * @param isCopied whether so many bytes are copied
   * @param into an earlier copy that nobody needs any more: fresh memory costs more than the copy
   */
  async hold(isCopied: (bytes: number) => boolean, into?: Snapshot): Promise<HeldState> {
    await this.#all(async (shard) => shard.verify?.());
    const own = this.#shards.flatMap(({ memory, kept }) => memory ?? kept ?? []);
    const isShared = own.length === this.#shards.length;
    if (isShared && into === undefined) {
      const lent = new LentState(this.#withRanges(own));
      if (this.areElsewhere || !isCopied(snapshotBytes(lent.snapshot))) {
        this.#lent = lent;
        return lent;
      }
    }
    const startedAt = performance.now();
    const copy = await this.#snapshot(into);
    return copiedState(copy, (performance.now() - startedAt) / 1000);
  }

  async #snapshot(into?: Snapshot): Promise<Snapshot> {
    const copies = await this.#all(async (shard, index) => {
      const { masters, states } = into?.[index] ?? {};
      const isMemory = masters instanceof Float32Array;
      return shard.snapshot?.(
        isMemory ? { masters, states: states as ShardArrays["states"] } : undefined,
      );
    });
    return this.#withRanges(copies.map((copy, shard) => copy ?? this.#keptBy(shard)));
  }

  /** The arrays when training is over: the shards' own memory where it can be had, no copy. */
  async finalState(): Promise<Snapshot> {
    await this.#all(async (shard) => shard.verify?.());
    return this.#withRanges(
      await this.#all(async (shard, index) => shard.memory ?? shard.kept ?? this.#keptBy(index)),
    );
  }

  #keptBy(shard: number): ShardArrays | KeptElsewhere {
    const { memory, kept } = this.#shards[shard] ?? {};
    const found = memory ?? kept;
    if (found === undefined) throw new Error(`Shard ${shard} shows nothing that it keeps`);
    return found;
  }

  #withRanges(parts: readonly (ShardArrays | KeptElsewhere)[]): Snapshot {
    return parts.map((part, shard) => {
      const { masters, states } = part;
      const files = "files" in part ? part.files : undefined;
      const writer = files && { files: this.#peers.writerOf(shard, files) };
      return { range: this.#range(shard), masters, states, ...writer };
    });
  }

  async stats(): Promise<readonly ShardStats[]> {
    return this.#all(async (shard) => shard.stats());
  }

  async close(isOver = false): Promise<void> {
    await Promise.allSettled(this.#shards.map((shard) => shard.close(isOver)));
  }

  #range(shard: number): ElementRange {
    return rangeOf({ layout: this.#layout, numShards: this.count, shardIndex: shard });
  }

  async #all<T>(call: (shard: ShardHandle, index: number) => Promise<T>): Promise<readonly T[]> {
    return Promise.all(this.#shards.map(call));
  }
}

/** What a shard has of the flat space. @throws RangeError */
export function rangeOf({ layout, numShards, shardIndex }: RangeOf): ElementRange {
  const range = shardRanges(layout, numShards)[shardIndex];
  if (range === undefined) throw new RangeError(`There is no shard ${shardIndex}`);
  return range;
}
