import { ErrorCode, type KV, NatsError } from "nats";
import { LockstepError } from "#lib/core/errors/index";
import type { NatsLink } from "./connection.js";
import { codeOf, noSuitablePeers, streamErrors, streamFailure } from "./event-stream.js";

const name = "lockstep-leases";
const replicasInCluster = 3;
const requestMs = 2_000;

/** What the bucket holds of a lease. */
export interface LeaseRecord {
  /** Rises with each owner. */
  readonly epoch: number;
  readonly holder: string;
  /** Random, of one holding. */
  readonly owner: string;
  readonly beats: number;
  readonly isReleased: boolean;
}

export interface FoundLease {
  readonly record: LeaseRecord;
  readonly revision: number;
}

/** The key-value bucket of all leases. */
export class LeaseBucket {
  readonly #link: NatsLink;
  readonly #kv: KV;

  private constructor(link: NatsLink, kv: KV) {
    this.#link = link;
    this.#kv = kv;
  }

  /** Makes it where there is none. @throws E_NATS_STREAM, or a failure of which {@link isPassing} judges */
  static async open(link: NatsLink): Promise<LeaseBucket> {
    const isCluster = link.connection.info?.cluster !== undefined;
    const open = (replicas: number): Promise<KV> =>
      link.connection.jetstream({ timeout: requestMs }).views.kv(name, {
        ...{ history: 1, replicas, allow_direct: false },
        description: "who leads runs of Lockstep",
      });
    try {
      const kv = await link.ask(() =>
        open(isCluster ? replicasInCluster : 1).catch((error: unknown) => {
          if (!isCluster || !noSuitablePeers.has(codeOf(error) ?? 0)) throw error;
          return open(1);
        }),
      );
      return new LeaseBucket(link, kv);
    } catch (error) {
      throw staysAtOpening(error, isCluster) ? leaseFailure(error) : error;
    }
  }

  async read(lease: string): Promise<FoundLease | undefined> {
    const entry = await this.#link.ask(() => this.#kv.get(lease));
    if (entry === null || entry.operation !== "PUT") return undefined;
    const record = parse(new TextDecoder().decode(entry.value));
    if (record === undefined) {
      const reason = `what the bucket ${name} holds of ${lease} is no lease`;
      throw new LockstepError("E_NATS_STREAM", { what: "say who leads", reason });
    }
    return { record, revision: entry.revision };
  }

  /** @returns the new revision; undefined: another one is there */
  async write(lease: string, record: LeaseRecord, revision: number): Promise<number | undefined> {
    const bytes = new TextEncoder().encode(JSON.stringify(record));
    try {
      return await this.#link.ask(() =>
        revision === 0 ? this.#kv.create(lease, bytes) : this.#kv.update(lease, bytes, revision),
      );
    } catch (error) {
      if (codeOf(error) === streamErrors.wrongLastSequence) return undefined;
      throw error;
    }
  }
}

/** Whether it may be over when the server is asked again. */
export const isPassing = (error: unknown): boolean =>
  error instanceof NatsError &&
  error.code !== String(ErrorCode.PermissionsViolation) &&
  error.code !== String(ErrorCode.ConnectionClosed);

export const leaseFailure = (error: unknown): unknown => streamFailure("keep the lease", error);

/** JetStream's codes of a cluster that has no leader now. */
const leaderless: ReadonlySet<number> = new Set([10_004, 10_008, 10_009]);

/** Whether a bucket cannot be had however long it is waited for: no room, another's settings, no JetStream. */
function staysAtOpening(error: unknown, isCluster: boolean): boolean {
  const code = codeOf(error);
  if (code !== undefined) return !leaderless.has(code);
  const isUnanswered = error instanceof NatsError && error.code === String(ErrorCode.NoResponders);
  return isUnanswered && !isCluster;
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
