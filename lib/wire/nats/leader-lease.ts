import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { ErrorCode, type KV, NatsError } from "nats";
import { LockstepError } from "#lib/core/errors/index";
import type { NatsLink } from "./connection.js";
import { codeOf, noSuitablePeers, streamErrors, streamFailure } from "./event-stream.js";

const bucket = "lockstep-leases";
const replicasInCluster = 3;

/** Times of a lease; those of an owner are shorter than those of who waits, by each one's own clock. */
interface LeaseTimes {
  /** Between two signs of life. */
  readonly renewMs: number;
  /** An owner that could give none for so long stops by itself. A cluster elects a leader in less. */
  readonly ownerMs: number;
  /** One of whom none came for so long is followed. */
  readonly takeoverMs: number;
}

const defaultTimes: LeaseTimes = { renewMs: 1_000, ownerMs: 7_000, takeoverMs: 8_000 };
/** How often who waits looks. */
const lookMs = 250;
const requestMs = 2_000;

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

/** What the bucket holds of a lease. */
interface LeaseRecord {
  /** Rises with each owner. */
  readonly epoch: number;
  readonly holder: string;
  /** Random, of one holding. */
  readonly owner: string;
  readonly beats: number;
  readonly isReleased: boolean;
}

interface Found {
  readonly record: LeaseRecord;
  readonly revision: number;
}

/**
 * Who leads, by a record in a key-value bucket that its owner keeps rewriting, each time beside the revision that it wrote
 * before. Who waits follows an owner whose record has not changed for a while, by its own clock; no clocks are
 * compared, and no expiry of the server is relied on. Of two that follow one succeeds, by the revision.
 */
export class NatsLease {
  /** Larger than that of everybody who led before. */
  epoch: number;
  readonly #kv: KV;
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
    kv: KV,
    options: LeaseOptions,
    held: {
      readonly epoch: number;
      readonly owner: string;
      readonly revision: number;
      readonly atMs: number;
    },
  ) {
    this.#kv = kv;
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
  }

  /** Waits until this process leads. @throws E_LEASE_HELD, E_NATS_STREAM; the signal's reason */
  static async acquire(link: NatsLink, options: LeaseOptions): Promise<NatsLease> {
    const { name, signal, holder } = options;
    const kv = await openBucket(link);
    const owner = randomUUID();
    for (;;) {
      const before = await untilFree(kv, owner, options);
      signal.throwIfAborted();
      const epoch = (before?.record.epoch ?? 0) + 1;
      const record: LeaseRecord = { epoch, holder, owner, beats: 0, isReleased: false };
      const atMs = performance.now();
      try {
        const revision = await write(kv, name, record, before?.revision ?? 0);
        if (revision !== undefined)
          return new NatsLease(kv, options, { epoch, owner, revision, atMs });
      } catch (error) {
        // Whether it was written shows once the server is there.
        refuseWhatStays(error);
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
    clearInterval(this.#timer);
    await this.#renewing;
    if (this.#lost !== undefined) return;
    this.#lost = new LockstepError("E_LEASE_LOST", {
      name: this.#options.name,
      reason: "it was given up",
    });
    await write(this.#kv, this.#options.name, this.#record(true), this.#revision).catch(() => {});
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
      this.#beats += 1;
      const written = this.#record(false);
      const revision = await write(this.#kv, name, written, this.#revision);
      if (revision !== undefined) {
        this.#writtenEpoch = written.epoch;
        this.#revision = revision;
        this.#renewedAtMs = atMs;
        return;
      }
      // What was written may be its own, of which the answer got lost.
      const found = await read(this.#kv, name);
      if (found?.record.owner === this.#owner) this.#revision = found.revision;
      else
        this.#lose(
          `${found?.record.holder ?? "nobody"} has it, since epoch ${found?.record.epoch ?? 0}`,
        );
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

  #lose(reason: string): void {
    if (this.#lost !== undefined) return;
    clearInterval(this.#timer);
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
async function untilFree(kv: KV, owner: string, options: LeaseOptions): Promise<Found | undefined> {
  const { name, standby, signal, onWaiting, times = defaultTimes } = options;
  let seen: Found | undefined;
  let [silentForMs, lookedAtMs] = [0, performance.now()];
  for (;;) {
    let found: Found | undefined | "away" = "away";
    try {
      found = await read(kv, name);
    } catch (error) {
      refuseWhatStays(error);
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

/** A server that is away, or elects its leader, is waited for. @throws anything else */
function refuseWhatStays(error: unknown): void {
  if (!(error instanceof NatsError)) throw error;
  if (error.code === String(ErrorCode.PermissionsViolation)) {
    throw streamFailure("keep the lease", error);
  }
}

async function read(kv: KV, name: string): Promise<Found | undefined> {
  const entry = await kv.get(name);
  if (entry === null || entry.operation !== "PUT") return undefined;
  const record = parse(new TextDecoder().decode(entry.value));
  if (record === undefined) {
    const reason = `what the bucket ${bucket} holds of ${name} is no lease`;
    throw new LockstepError("E_NATS_STREAM", { what: "say who leads", reason });
  }
  return { record, revision: entry.revision };
}

function parse(text: string): LeaseRecord | undefined {
  try {
    const { epoch, holder, owner, beats, isReleased } = JSON.parse(text) as Partial<LeaseRecord>;
    if (!Number.isSafeInteger(epoch) || epoch === undefined || epoch < 1) return undefined;
    if (typeof holder !== "string" || typeof owner !== "string") return undefined;
    return { epoch, holder, owner, beats: Number(beats), isReleased: isReleased === true };
  } catch {
    return undefined;
  }
}

/** @returns the new revision; undefined: another one is there */
async function write(
  kv: KV,
  name: string,
  record: LeaseRecord,
  revision: number,
): Promise<number | undefined> {
  const bytes = new TextEncoder().encode(JSON.stringify(record));
  try {
    return revision === 0 ? await kv.create(name, bytes) : await kv.update(name, bytes, revision);
  } catch (error) {
    if (codeOf(error) === streamErrors.wrongLastSequence) return undefined;
    throw error;
  }
}

async function openBucket(link: NatsLink): Promise<KV> {
  const isCluster = link.connection.info?.cluster !== undefined;
  const open = (replicas: number): Promise<KV> =>
    link.connection.jetstream({ timeout: requestMs }).views.kv(bucket, {
      ...{ history: 1, replicas, allow_direct: false },
      description: "who leads runs of Lockstep",
    });
  try {
    return await open(isCluster ? replicasInCluster : 1).catch((error: unknown) => {
      if (!isCluster || !noSuitablePeers.has(codeOf(error) ?? 0)) throw error;
      return open(1);
    });
  } catch (error) {
    throw streamFailure("keep the lease", error);
  }
}
