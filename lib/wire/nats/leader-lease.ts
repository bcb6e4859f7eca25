import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "#lib/core/errors/index";
import type { NatsLink } from "./connection.js";
import {
  type FoundLease,
  isPassing,
  LeaseBucket,
  leaseFailure,
  type LeaseRecord,
} from "./lease-bucket.js";

/** Times of a lease; those of an owner are shorter than those of who waits, by each one's own clock. */
interface LeaseTimes {
  /** Between two signs of life. */
  readonly renewMs: number;
  /** An owner that could give none for so long stops by itself. Most elections of a cluster take less. */
  readonly ownerMs: number;
  /** One of whom none came for so long is followed. */
  readonly takeoverMs: number;
  /** One that does not stand by gives up where the server has not said for so long who leads. */
  readonly patienceMs: number;
}

const defaultTimes: LeaseTimes = {
  ...{ renewMs: 1_000, ownerMs: 7_000, takeoverMs: 8_000, patienceMs: 30_000 },
};
/** How often who waits looks. */
const lookMs = 250;
/** A server that does not say for so long who leads is told of. */
const quietMs = 3_000;

interface LeaseOptions {
  /** Coordinators of one run have the same. */
  readonly name: string;
  /** Who this is, for a person. */
  readonly holder: string;
  /** Wait for as long as another one gives signs of life; otherwise it is refused. */
  readonly standby: boolean;
  readonly onWaiting: (text: string) => void;
  /** Called once, when the lease is another's, or could not be renewed in time. */
  readonly onLost: (error: LockstepError) => void;
  readonly signal: AbortSignal;
  readonly times?: LeaseTimes;
}

/**
 * Who leads, by a record in a key-value bucket that its owner keeps rewriting, each time beside the revision that it wrote
 * before. Who waits follows an owner whose record has not changed for a while, by its own clock; no clocks are
 * compared, and no expiry of the server is relied on. Of two that follow one succeeds, by the revision.
 */
export class NatsLease {
  /** Larger than that of everybody who led before. */
  epoch: number;
  readonly #bucket: LeaseBucket;
  readonly #stopListening: () => void;
  readonly #options: LeaseOptions;
  readonly #times: LeaseTimes;
  readonly #owner: string;
  #revision: number;
  #renewedAtMs: number;
  #beats = 0;
  #lost: LockstepError | undefined;
  #timer: NodeJS.Timeout | undefined;
  #renewing: Promise<void> = Promise.resolve();
  #writtenEpoch = 0;
  #isAsking = false;
  #askedAtMs = performance.now();

  private constructor(
    link: NatsLink,
    bucket: LeaseBucket,
    options: LeaseOptions,
    held: {
      readonly epoch: number;
      readonly owner: string;
      readonly revision: number;
      readonly atMs: number;
    },
  ) {
    this.#bucket = bucket;
    this.#options = options;
    this.#times = options.times ?? defaultTimes;
    this.epoch = held.epoch;
    this.#owner = held.owner;
    this.#revision = held.revision;
    this.#renewedAtMs = held.atMs;
    this.#timer = setInterval(() => {
      this.#lookAtDeadline();
      const sinceMs = performance.now() - this.#askedAtMs;
      if (!this.#isAsking && sinceMs >= this.#times.renewMs) void this.#tick();
    }, lookMs);
    this.#timer.unref();
    // What was asked of the lost connection is not waited for.
    this.#stopListening = link.onReopened(() => void this.#tick());
  }

  /** Waits until this process leads. @throws E_LEASE_HELD, E_NATS_STREAM; the signal's reason */
  static async acquire(link: NatsLink, options: LeaseOptions): Promise<NatsLease> {
    const { name, signal, holder } = options;
    const owner = randomUUID();
    const patience = new Patience(link, options);
    let bucket: LeaseBucket | undefined;
    for (;;) {
      try {
        if (bucket === undefined) {
          bucket = await LeaseBucket.open(link);
          patience.restore();
        }
        const before = await untilFree(bucket, owner, { link, options });
        signal.throwIfAborted();
        const epoch = (before?.record.epoch ?? 0) + 1;
        const record: LeaseRecord = { epoch, holder, owner, beats: 0, isReleased: false };
        const atMs = performance.now();
        const revision = await bucket.write(name, record, before?.revision ?? 0);
        if (revision !== undefined)
          return new NatsLease(link, bucket, options, { epoch, owner, revision, atMs });
      } catch (error) {
        // Whether it was written shows once the server is there.
        patience.bear(error);
        await delay(lookMs, undefined, { signal });
      }
    }
  }

  /** The epoch is this at least, from now on and for those that follow. @throws E_LEASE_LOST */
  async raise(epoch: number): Promise<void> {
    this.epoch = Math.max(this.epoch, epoch);
    do {
      await this.#tick();
      this.assertHeld();
    } while (this.#writtenEpoch < this.epoch && (await delay(lookMs, true)));
  }

  /** To be asked right before something is written. @throws E_LEASE_LOST */
  assertHeld(): void {
    this.#lookAtDeadline();
    if (this.#lost !== undefined) throw this.#lost;
  }

  /** Gives the lease up; the next one follows at once. */
  async release(): Promise<void> {
    this.#end();
    await this.#renewing;
    if (this.#lost !== undefined) return;
    this.#lost = new LockstepError("E_LEASE_LOST", {
      name: this.#options.name,
      reason: "it was given up",
    });
    const { name } = this.#options;
    await this.#bucket.write(name, this.#record(true), this.#revision).catch(() => {});
  }

  #tick(): Promise<void> {
    this.#renewing = this.#renewing.then(() => this.#renew());
    return this.#renewing;
  }

  async #renew(): Promise<void> {
    if (this.#lost !== undefined) return;
    const { name } = this.#options;
    const atMs = performance.now();
    this.#askedAtMs = atMs;
    this.#isAsking = true;
    try {
      while (this.#lost === undefined) {
        this.#beats += 1;
        const written = this.#record(false);
        const revision = await this.#bucket.write(name, written, this.#revision);
        if (revision !== undefined) {
          this.#writtenEpoch = written.epoch;
          this.#revision = revision;
          this.#renewedAtMs = atMs;
          return;
        }
        const found = await this.#bucket.read(name);
        if (found?.record.owner !== this.#owner) {
          const { holder = "nobody", epoch = 0 } = found?.record ?? {};
          return this.#lose(`${holder} has it, since epoch ${epoch}`);
        }
        // Its own, of which the answer got lost.
        this.#revision = found.revision;
      }
    } catch {
      // The deadline decides.
    } finally {
      this.#isAsking = false;
    }
  }

  #lookAtDeadline(): void {
    const { ownerMs } = this.#times;
    if (performance.now() - this.#renewedAtMs <= ownerMs) return;
    this.#lose(`it could not be renewed for ${ownerMs / 1_000} s`);
  }

  #record(isReleased: boolean): LeaseRecord {
    const { holder } = this.#options;
    return { epoch: this.epoch, holder, owner: this.#owner, beats: this.#beats, isReleased };
  }

  #end(): void {
    clearInterval(this.#timer);
    this.#stopListening();
  }

  #lose(reason: string): void {
    if (this.#lost !== undefined) return;
    this.#end();
    this.#lost = new LockstepError("E_LEASE_LOST", { name: this.#options.name, reason });
    this.#options.onLost(this.#lost);
  }
}

/**
 * Waits until nobody has the lease, or its owner gave no sign of life for long enough.
 *
 * @param owner of whom waits
 * @returns what is to be followed; undefined: there was none
 */
async function untilFree(
  bucket: LeaseBucket,
  owner: string,
  { link, options }: { readonly link: NatsLink; readonly options: LeaseOptions },
): Promise<FoundLease | undefined> {
  const { name, standby, signal, onWaiting, times = defaultTimes } = options;
  const patience = new Patience(link, options);
  let seen: FoundLease | undefined;
  let [silentForMs, lookedAtMs] = [0, performance.now()];
  for (;;) {
    let found: FoundLease | undefined | "away" = "away";
    try {
      found = await bucket.read(name);
      patience.restore();
    } catch (error) {
      patience.bear(error);
    }
    const nowMs = performance.now();
    // A process that was stopped itself has not looked meanwhile; nor does it see anybody while the server is away.
    const sinceMs = found === "away" ? 0 : Math.min(nowMs - lookedAtMs, 4 * lookMs);
    lookedAtMs = nowMs;
    if (found !== "away") {
      if (found === undefined || found.record.isReleased) return found;
      // Its own, of which the answer got lost.
      if (found.record.owner === owner) return found;
      if (seen === undefined) {
        const { holder, epoch } = found.record;
        onWaiting(
          `${holder} leads by the lease ${name} (epoch ${epoch}); this one follows when it gives no sign of life for ${times.takeoverMs / 1_000} s`,
        );
      }
      if (found.revision === seen?.revision) silentForMs += sinceMs;
      else {
        if (seen !== undefined && !standby) {
          throw new LockstepError("E_LEASE_HELD", { name, by: found.record.holder });
        }
        silentForMs = 0;
      }
      seen = found;
      if (silentForMs >= times.takeoverMs) return found;
    }
    await delay(lookMs, undefined, { signal });
  }
}

/** A server that is away, or elects its leader, is waited for: by one that stands by as long as it takes. */
class Patience {
  readonly #link: NatsLink;
  readonly #options: LeaseOptions;
  #sinceMs: number | undefined;
  #isTold = false;

  constructor(link: NatsLink, options: LeaseOptions) {
    this.#link = link;
    this.#options = options;
  }

  /** @throws what does not pass, or has lasted too long */
  bear(thrown: unknown): void {
    const error = leaseFailure(thrown);
    if (!isPassing(thrown)) throw error;
    const { standby, onWaiting, times = defaultTimes } = this.#options;
    const nowMs = performance.now();
    this.#sinceMs ??= nowMs;
    const lastedMs = nowMs - this.#sinceMs;
    if (!standby && lastedMs >= times.patienceMs) throw error;
    // The link tells that it is lost.
    if (this.#isTold || lastedMs < quietMs || !this.#link.isOpen) return;
    this.#isTold = true;
    onWaiting(`${error instanceof Error ? error.message : String(error)} It is asked again.`);
  }

  /** The server answers. */
  restore(): void {
    this.#sinceMs = undefined;
    this.#isTold = false;
  }
}
