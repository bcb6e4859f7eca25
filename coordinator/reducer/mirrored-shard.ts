import { randomBytes } from "node:crypto";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { ShardArrays } from "#lib/core/shard-arrays";
import type { Update } from "#lib/optim/index";
import {
  type FenceChange,
  peerName,
  type ShardPeer,
  type ShardStats,
  type ShardStatus,
} from "#lib/wire/reducer-messages";
import type { KeptElsewhere } from "#coordinator/kept-elsewhere";
import type { ShardHandle, ShardSource, StartShard, StartShardOptions } from "#coordinator/shards";
import { failoverPiece } from "./failover-array.js";
import { hasSameBits } from "./same-bits.js";
import {
  isGone,
  messageOf,
  refusedMirror,
  type Replica,
  seekReplica,
  startBoth,
  type MirrorOptions,
} from "./replicas.js";
import { PrimaryStats } from "./primary-stats.js";
import { TwinCalls } from "./twin-calls.js";
import { followsFrom, isBehind } from "./shard-progress.js";

/**
 * A shard that two processes keep. Workers know one of them, the primary, which adds the groups; the other, the mirror,
 * fetches the sum from it, and from there on both do the same. So the mirror takes over wherever the primary dies: the
 * groups of the step in progress are sent again where only the primary had them, and nothing else is lost or done twice.
 *
 * A process that comes in the place of a lost one becomes the mirror: it copies what the other keeps while the groups of
 * a step are computed, and the update waits until that is done.
 */
class MirroredShard extends TwinCalls implements ShardHandle {
  readonly #options: StartShardOptions;
  readonly #mirroring: MirrorOptions;
  /** What the mirror shows the primary. */
  readonly #secret = randomBytes(16).toString("hex");
  #primary: Replica;
  /** A copy that has done all that the primary has. */
  #mirror: Replica | undefined;
  /** A process that is none yet. */
  #spare: Replica | undefined;
  #joining: Promise<void> | undefined;
  /** At whom the mirror may fetch. */
  #admittedAt: Replica | undefined;
  /** Only the primary has what has come of the step in progress. */
  #isGathering = false;
  #hasLostGroups = false;
  /** Aborted when the shard is closed, or lost. */
  readonly #end = new AbortController();
  readonly #stats = new PrimaryStats();

  private constructor(options: StartShardOptions, mirroring: MirrorOptions, primary: Replica) {
    super();
    this.#options = options;
    this.#mirroring = mirroring;
    this.#primary = primary;
    this.#attach(primary);
  }

  /**
   * Starts both copies, or finds them as a coordinator before left them.
   * @throws what they throw; one that is not there alone is told of
   */
  static async start(options: StartShardOptions, mirroring: MirrorOptions): Promise<MirroredShard> {
    const { found, missing } = await startBoth(mirroring, options);
    const [one, other] = found;
    const shard = new MirroredShard(options, mirroring, one);
    if (other === undefined) {
      shard.#tell("mirror.lost", "", missing);
      shard.#hasLostGroups = (await one.handle.status()).stage === "open";
      void shard.#seek(one.index === 0 ? 1 : 0);
    } else {
      shard.#attach(other);
      await shard.#choose(one, other);
    }
    return shard;
  }

  get address(): string {
    return this.#primary.handle.address;
  }

  get isElsewhere(): boolean {
    return this.#primary.handle.isElsewhere === true;
  }

  get memory(): ShardArrays | undefined {
    return this.#primary.handle.memory;
  }

  /** Read from the mirror where the primary dies meanwhile. */
  get kept(): KeptElsewhere | undefined {
    if (this.#primary.handle.kept === undefined) return undefined;
    return failoverPiece(() => {
      const primary = this.#primary;
      const failed = (error: unknown): void => this.#lostBy(primary, error);
      return { kept: primary.handle.kept, failed };
    });
  }

  async load(source: ShardSource): Promise<void> {
    const spare = this.#spare;
    if (this.#mirror === undefined && spare !== undefined) this.#takePlace(spare, 0);
    await this.both((handle) => handle.load(source));
    this.#isGathering = false;
  }

  /** Of the copy that has done less: a coordinator that goes on from there brings both to the same. */
  async status(): Promise<ShardStatus> {
    const statuses: ShardStatus[] = [];
    await this.both(async (handle) => {
      statuses.push(await handle.status());
    });
    const [one, other] = statuses as [ShardStatus, ShardStatus | undefined];
    return other !== undefined && isBehind(other, one) ? other : one;
  }

  async changeFence(change: FenceChange): Promise<void> {
    await this.#first((handle) => handle.changeFence(change));
  }

  async openStep(step: number): Promise<void> {
    await this.both((handle) => handle.openStep(step));
    this.#hasLostGroups = false;
    this.#isGathering = true;
    if (this.#spare !== undefined && this.#mirror === undefined) this.#join(this.#spare, step);
  }

  async restartStep(step: number): Promise<void> {
    await this.#bothNow((handle) => handle.restartStep(step));
    this.#hasLostGroups = false;
    this.#isGathering = true;
  }

  /** @returns undefined where groups were lost with a primary, and the step has to be restarted */
  async reduce(step: number): ReturnType<ShardHandle["reduce"]> {
    await this.#joining;
    for (;;) {
      const { handle } = this.#primary;
      const primary = this.#primary;
      try {
        if (this.#hasLostGroups && (await handle.status()).stage === "open") return undefined;
        const reduced = await handle.reduce(step);
        if (reduced === undefined) return undefined;
        if (await this.#passOn(step, reduced, primary)) return reduced;
      } catch (error) {
        this.#lostBy(primary, error);
      }
    }
  }

  async apply(step: number, update: Update): Promise<void> {
    await this.both((handle) => handle.apply(step, update));
    const { compareSteps } = this.#mirroring;
    if (compareSteps > 0 && update.updateNumber % compareSteps === 0) await this.verify();
  }

  async discard(step: number): Promise<void> {
    await this.both((handle) => handle.discard(step));
    this.#isGathering = false;
    this.#hasLostGroups = false;
  }

  /** Compares all that both copies keep. @throws E_SHARD_DIVERGED */
  async verify(): Promise<void> {
    const mirror = this.#mirror;
    if (mirror === undefined) return;
    const startedAt = performance.now();
    await this.digest();
    // One that was lost meanwhile was not compared.
    if (this.#mirror !== mirror) return;
    const { shardIndex: shard } = this.#options;
    const seconds = (performance.now() - startedAt) / 1000;
    this.#mirroring.bus.publish({ type: "mirror.compared", shard, seconds });
  }

  async snapshot(into?: ShardArrays): Promise<ShardArrays | undefined> {
    return this.#first(async (handle) => handle.snapshot?.(into));
  }

  async stats(): Promise<ShardStats> {
    return this.#stats.add(await this.#first(async (handle) => handle.stats()));
  }

  async close(isOver = false): Promise<void> {
    this.#end.abort();
    const replicas = [this.#primary, this.#mirror, this.#spare];
    await Promise.allSettled(replicas.map(async (replica) => replica?.handle.close(isOver)));
    await this.#joining;
  }

  /** Who is the primary of two that are there, and whether the other one may be its mirror. */
  async #choose(one: Replica, other: Replica): Promise<void> {
    const [of, ofOther] = await Promise.all([one.handle.status(), other.handle.status()]);
    const isOtherAhead = isBehind(of, ofOther);
    this.#primary = isOtherAhead ? other : one;
    // Which of them workers had sent to is not known.
    this.#hasLostGroups = [of, ofOther].some(({ stage }) => stage === "open");
    const second = isOtherAhead ? one : other;
    this.#spare = second;
    const [ahead, behind] = isOtherAhead ? [ofOther, of] : [of, ofOther];
    if (followsFrom(ahead, behind)) this.#takePlace(second, 0);
  }

  /** A copy has all that the primary has. */
  #takePlace(spare: Replica, seconds: number): void {
    this.#mirror = spare;
    this.#spare = undefined;
    const { shardIndex: shard } = this.#options;
    const { address } = spare.handle;
    this.#mirroring.bus.publish({ type: "mirror.inPlace", shard, address, seconds });
  }

  #attach(replica: Replica): void {
    this.listenTo(replica.handle, () => replica === this.#primary);
    replica.handle.onFailure((error) => this.#lost(replica, error));
  }

  /**
   * Has the mirror fetch the sum, where there is one.
   *
   * @returns whether the primary is still the one that was asked
   * @throws what the primary is lost with, E_SHARD_DIVERGED
   */
  async #passOn(step: number, reduced: unknown, primary: Replica): Promise<boolean> {
    const mirror = this.#mirror;
    if (this.#primary === primary && mirror !== undefined) {
      const peer = await this.#peer(primary);
      try {
        const taken = await mirror.handle.takeSum(step, peer);
        this.#isGathering = false;
        this.#compare("sums of blocks", reduced, taken);
      } catch (error) {
        if (isLockstepError(error) && error.code === "E_SHARD_DIVERGED") throw error;
        if (isGone(error)) this.#lost(mirror, error);
        // The mirror may have failed because the primary is gone, which its own connection tells.
        await primary.handle.status();
        this.#putAside(mirror, error);
      }
    }
    if (this.#primary !== primary) return false;
    this.#isGathering = false;
    return true;
  }

  async #peer(primary: Replica): Promise<ShardPeer> {
    const name = peerName(this.#options.shardIndex);
    if (this.#admittedAt !== primary) {
      await primary.handle.changeFence({ kind: "admit", workerId: name, secret: this.#secret });
      this.#admittedAt = primary;
    }
    const { address } = primary.handle;
    return { address, ...this.#options.life, name, secret: this.#secret };
  }

  /** Copies what the primary keeps, which nothing changes before the groups of the step that is open are reduced. */
  #join(spare: Replica, step: number): void {
    const primary = this.#primary;
    const startedAt = performance.now();
    const copy = async (): Promise<void> => {
      try {
        const status = await primary.handle.status();
        await spare.handle.takeState(status, await this.#peer(primary));
        await spare.handle.openStep(step);
        if (this.#end.signal.aborted || this.#primary !== primary || this.#spare !== spare) return;
        this.#takePlace(spare, (performance.now() - startedAt) / 1000);
      } catch (error) {
        // The next step tries again, with a copy that is there.
        if (isGone(error) && this.#primary === primary) this.#lost(spare, error);
      }
    };
    this.#joining = copy().finally(() => {
      this.#joining = undefined;
    });
  }

  /** Asks both, once a mirror that is being made is there. */
  protected async both<T>(call: (handle: ShardHandle) => Promise<T>): Promise<T> {
    await this.#joining;
    return this.#bothNow(call);
  }

  async #bothNow<T>(call: (handle: ShardHandle) => Promise<T>): Promise<T> {
    for (;;) {
      const [primary, mirror] = [this.#primary, this.#mirror];
      const [first, second] = await Promise.allSettled([
        call(primary.handle),
        mirror === undefined ? undefined : call(mirror.handle),
      ]);
      if (mirror !== undefined && second.status === "rejected") {
        if (isGone(second.reason)) this.#lost(mirror, second.reason);
        else if (first.status === "fulfilled") this.#putAside(mirror, second.reason);
      }
      if (first.status === "fulfilled") {
        if (mirror !== undefined && second.status === "fulfilled") {
          this.#compare("answers", first.value, second.value);
        }
        return first.value;
      }
      this.#lostBy(primary, first.reason);
      const isAnswered = second.status === "fulfilled" && this.#primary === mirror;
      if (isAnswered) return second.value as T;
    }
  }

  /** Asks the primary, and where it dies the one that takes over. */
  async #first<T>(call: (handle: ShardHandle) => Promise<T>): Promise<T> {
    for (;;) {
      const primary = this.#primary;
      try {
        return await call(primary.handle);
      } catch (error) {
        this.#lostBy(primary, error);
      }
    }
  }

  /** @throws the error, where it is not the loss of that copy or no other is left */
  #lostBy(replica: Replica, error: unknown): void {
    if (!isGone(error)) throw error;
    this.#lost(replica, error);
    if (this.failure !== undefined) throw this.failure;
    if (this.#end.signal.aborted) throw error;
  }

  #lost(replica: Replica, error: unknown): void {
    if (this.#end.signal.aborted || this.failure !== undefined) return;
    if (replica === this.#spare) this.#spare = undefined;
    else if (!isGone(error)) this.fail(error);
    else if (replica === this.#mirror) {
      this.#mirror = undefined;
      this.#tell("mirror.lost", replica.handle.address, error);
    } else if (replica === this.#primary) {
      if (this.#mirror === undefined) this.fail(error);
      else this.#takeOver(this.#mirror, error);
    } else return;
    if (this.failure !== undefined) return;
    void replica.handle.close();
    void this.#seek(replica.index);
  }

  #takeOver(mirror: Replica, error: unknown): void {
    this.#primary = mirror;
    this.#mirror = undefined;
    this.#hasLostGroups = this.#isGathering;
    this.#stats.moved();
    this.#tell("shard.takenOver", mirror.handle.address, error);
    this.moved();
  }

  /** A mirror that cannot do what the primary did is copied anew. */
  #putAside(mirror: Replica, error: unknown): void {
    if (this.#mirror !== mirror) return;
    this.#mirror = undefined;
    this.#spare = mirror;
    this.#tell("mirror.lost", mirror.handle.address, error);
  }

  /** Two copies that differ: nobody knows which one is right, so neither is gone on with. */
  #compare(what: string, one: unknown, other: unknown): void {
    if (hasSameBits(one, other)) return;
    const { shardIndex } = this.#options;
    const addresses = [this.#primary, this.#mirror].map((replica) => replica?.handle.address ?? "");
    const error = new LockstepError("E_SHARD_DIVERGED", {
      ...{ shardIndex, what, addresses: addresses.join(" and ") },
    });
    this.fail(error);
    throw error;
  }

  /** Until a copy is there in the place of one that is gone. */
  async #seek(index: 0 | 1): Promise<void> {
    const start = this.#mirroring.replicas[index];
    const onRefused = refusedMirror(this.#mirroring.bus, this.#options.shardIndex);
    const hooks = { signal: this.#end.signal, onRefused };
    const handle = await seekReplica(start, this.#options, hooks);
    if (handle === undefined) return;
    const replica: Replica = { handle, index };
    this.#spare = replica;
    this.#attach(replica);
  }

  #tell(type: "mirror.lost" | "shard.takenOver", address: string, error: unknown): void {
    const { shardIndex: shard } = this.#options;
    this.#mirroring.bus.publish({ type, shard, address, reason: messageOf(error) });
  }
}

/** Starts shards with two copies each. */
export const startMirrored =
  (mirroring: MirrorOptions): StartShard =>
  (options) =>
    MirroredShard.start(options, mirroring);
