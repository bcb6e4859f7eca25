import type { Measurement, SumWindow } from "#lib/optim/index";
import type {
  ArrivedGroup,
  PenalisedSums,
  RefusedPush,
  ShardLimitNotice,
  ShardPeer,
  ShardStatus,
} from "#lib/wire/reducer-messages";
import type { ShardHandle } from "#coordinator/shards";

type Listeners<T extends readonly unknown[]> = ((...args: T) => void)[];

/** What is the same for both copies of a shard: calls that go to both, and what is heard of either. */
export abstract class TwinCalls {
  readonly #onArrived: Listeners<[ArrivedGroup]> = [];
  readonly #onRefused: Listeners<[RefusedPush]> = [];
  readonly #onRpc: Listeners<[method: string, code: string, seconds: number]> = [];
  readonly #onLimit: Listeners<[ShardLimitNotice]> = [];
  readonly #onMoved: Listeners<[]> = [];
  readonly #onFailure: Listeners<[unknown]> = [];
  #failure: unknown;

  /** Asks both copies, and compares what they answer. */
  protected abstract both<T>(call: (handle: ShardHandle) => Promise<T>): Promise<T>;

  async publishInitial(version: number): Promise<void> {
    await this.both((handle) => handle.publishInitial(version));
  }

  async takeSum(step: number, peer: ShardPeer): ReturnType<ShardHandle["takeSum"]> {
    return this.both((handle) => handle.takeSum(step, peer));
  }

  async takeState(status: ShardStatus, peer: ShardPeer): Promise<void> {
    await this.both((handle) => handle.takeState(status, peer));
  }

  async digest(): Promise<string> {
    return this.both((handle) => handle.digest());
  }

  async penalise(step: number, factor: number): Promise<PenalisedSums> {
    return this.both((handle) => handle.penalise(step, factor));
  }

  async keepSquares(step: number, first: boolean): Promise<void> {
    await this.both((handle) => handle.keepSquares(step, first));
  }

  async fisherSums(): Promise<Float64Array> {
    return this.both((handle) => handle.fisherSums());
  }

  async finishFisher(scale: number): Promise<void> {
    await this.both((handle) => handle.finishFisher(scale));
  }

  async measure(step: number, measurement: Measurement): Promise<readonly SumWindow[]> {
    return this.both((handle) => handle.measure(step, measurement));
  }

  onArrived(callback: (arrived: ArrivedGroup) => void): void {
    this.#onArrived.push(callback);
  }

  onRefused(callback: (refused: RefusedPush) => void): void {
    this.#onRefused.push(callback);
  }

  onRpc(callback: (method: string, code: string, seconds: number) => void): void {
    this.#onRpc.push(callback);
  }

  onLimit(callback: (notice: ShardLimitNotice) => void): void {
    this.#onLimit.push(callback);
  }

  /** Called when the shard is at another address: what workers had sent of the step in progress may be lost. */
  onMoved(callback: () => void): void {
    this.#onMoved.push(callback);
  }

  /** Called where no copy is left, or nobody can say which one is right. */
  onFailure(callback: (error: unknown) => void): void {
    this.#onFailure.push(callback);
    if (this.#failure !== undefined) callback(this.#failure);
  }

  /** What the shard is lost with. */
  protected get failure(): unknown {
    return this.#failure;
  }

  protected fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    for (const callback of this.#onFailure) callback(error);
  }

  protected moved(): void {
    for (const callback of this.#onMoved) callback();
  }

  /** Passes on what is heard of a copy. @param isPrimary whether workers send to it now */
  protected listenTo(handle: ShardHandle, isPrimary: () => boolean): void {
    handle.onArrived((arrived) => {
      if (isPrimary()) for (const callback of this.#onArrived) callback(arrived);
    });
    handle.onLimit((notice) => {
      if (isPrimary()) for (const callback of this.#onLimit) callback(notice);
    });
    handle.onRefused((refused) => {
      for (const callback of this.#onRefused) callback(refused);
    });
    handle.onRpc((...call) => {
      for (const callback of this.#onRpc) callback(...call);
    });
  }
}
