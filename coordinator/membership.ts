import { randomUUID } from "node:crypto";
import { LockstepError } from "#lib/core/errors/index";
import type { WorkerState } from "#lib/core/events";
import { defaultLeaseTimeoutMs } from "./limits.js";
import { type DeviceKinds, lifeOf } from "./device-kinds.js";

interface WorkerInfo {
  /** Name that the worker would like; the id is made from it. */
  readonly name: string;
  readonly host: string;
  readonly pid: number;
  readonly deviceKind: string;
  readonly deviceType: "cpu" | "gpu";
  /** Random, of this life of its process. */
  readonly incarnation: string;
  /** What its calls show. */
  readonly secret: string;
  /** Whom its certificate names; undefined without mutual TLS. */
  readonly certificate?: string | undefined;
}

interface Member extends WorkerInfo {
  readonly workerId: string;
  readonly lastSeenMs: number;
  /** When it last asked for work; of one that has not yet, when it joined. */
  readonly lastAskedMs: number;
  readonly state: WorkerState;
  /** Whether it has said its state itself. */
  readonly tellsState: boolean;
}

interface MembershipOptions {
  /** Silence after which a worker counts as dead. */
  readonly heartbeatTimeoutMs: number;
  /** Is told who comes, goes and computes. */
  readonly kinds: DeviceKinds;
  /** Milliseconds, monotonic, of the time in which members can be heard. */
  readonly now: () => number;
}

/** Workers at once, by far; each is a series of some metrics. */
const maxMembers = 4_096;
/** Of the name that a worker would like: it is a label of metrics and a word of logs. */
const maxNameChars = 64;
/** A group that takes longer than so many leases does not end. */
export const stuckLeaseTimes = 3;
/** Ids that are remembered; ids after these have a random end. */
const maxKnownIds = 10_000;

/** Who takes part, and when each was last heard. Knows nothing of sockets or timers. */
export class Membership {
  readonly #options: MembershipOptions;
  readonly #members = new Map<string, Member>();
  /** Of members that ever joined, by id. */
  readonly #known = new Map<string, Pick<Member, "incarnation" | "deviceKind">>();
  readonly #idsByLife = new Map<string, string>();

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#members.size;
  }

  /** Processes that ever joined. */
  get numJoined(): number {
    return this.#idsByLife.size;
  }

  members(): readonly Member[] {
    return [...this.#members.values()];
  }

  find(workerId: string): Member | undefined {
    return this.#members.get(workerId);
  }

  /** Of a member of now or of before. */
  incarnationOf(workerId: string): string | undefined {
    return (this.#members.get(workerId) ?? this.#known.get(workerId))?.incarnation;
  }

  /** What a worker of now or of before computed is part of the run. */
  worked(workerId: string): void {
    const { deviceKind } = this.#members.get(workerId) ?? this.#known.get(workerId) ?? {};
    if (deviceKind !== undefined) this.#options.kinds.worked(deviceKind);
  }

  /** @throws E_TOO_MANY_WORKERS */
  join(info: WorkerInfo): Member {
    if (this.#members.size >= maxMembers) {
      throw new LockstepError("E_TOO_MANY_WORKERS", { host: info.host, limit: maxMembers });
    }
    const { name, host, pid, deviceType, incarnation, secret, certificate } = info;
    const nowMs = this.#options.now();
    const member: Member = {
      ...{ name, host, pid, deviceKind: info.deviceKind, deviceType, incarnation, secret },
      certificate,
      workerId: this.#idOf(info),
      lastSeenMs: nowMs,
      lastAskedMs: nowMs,
      state: "compiling",
      tellsState: false,
    };
    this.#members.set(member.workerId, member);
    this.#options.kinds.entered(member);
    return member;
  }

  /** Notes a sign of life. @throws E_UNKNOWN_WORKER */
  seen(workerId: string, state?: WorkerState): Member {
    const member = this.#members.get(workerId);
    if (member === undefined) throw new LockstepError("E_UNKNOWN_WORKER", { worker: workerId });
    const updated: Member = {
      ...member,
      lastSeenMs: this.#options.now(),
      state: state ?? member.state,
      tellsState: member.tellsState || state !== undefined,
    };
    this.#members.set(workerId, updated);
    return updated;
  }

  /** Notes that a member wants work. @throws E_UNKNOWN_WORKER */
  asked(workerId: string): void {
    const member = this.seen(workerId);
    this.#members.set(workerId, { ...member, lastAskedMs: member.lastSeenMs });
  }

  remove(workerId: string): Member | undefined {
    const member = this.#members.get(workerId);
    this.#members.delete(workerId);
    if (member !== undefined) this.#options.kinds.left(member);
    return member;
  }

  /** Members that were silent for too long; they are not removed yet. */
  silent(): readonly Member[] {
    const since = this.#options.now() - this.#options.heartbeatTimeoutMs;
    return this.members().filter((member) => member.lastSeenMs < since);
  }

  /**
   * One that lives and has asked for nothing in three times the time that a group may take: its loop, or its engine, is
   * stuck.
   *
   * @param isWaiting whether one has asked and has no answer yet
   */
  stuck(leaseTimeoutMs: number, isWaiting: (workerId: string) => boolean): Member | undefined {
    const now = this.#options.now();
    return this.members().find(({ workerId, lastAskedMs, state }) => {
      const workMs = state === "compiling" ? withEngine(leaseTimeoutMs) : leaseTimeoutMs;
      return now - lastAskedMs > stuckLeaseTimes * workMs && !isWaiting(workerId);
    });
  }

  /**
   * Members that ask for work, have joined just now, or say that they make their engine: others may be here for ever,
   * and are waited for as long as for a lease.
   *
   * @param isWaiting whether one has asked and has no answer yet
   */
  takingPart(leaseTimeoutMs: number, isWaiting: (workerId: string) => boolean): readonly string[] {
    const now = this.#options.now();
    return this.members()
      .filter(({ workerId, lastAskedMs, state, tellsState }) => {
        const isStarting = tellsState && state === "compiling";
        const workMs = isStarting ? withEngine(leaseTimeoutMs) : leaseTimeoutMs;
        return now - lastAskedMs <= workMs || isWaiting(workerId);
      })
      .map(({ workerId }) => workerId);
  }

  /**
   * An id is one incarnation's, for good: one that registers again is no second opinion about what it computed,
   * and answers for what it did before. A late call of a former registration shows another secret. Who says that it is
   * an incarnation and comes with another certificate is somebody else.
   */
  #idOf({ name, incarnation, deviceKind, certificate }: WorkerInfo): string {
    const life = lifeOf(incarnation, certificate);
    const own = this.#idsByLife.get(life);
    if (own !== undefined) return own;
    const base = name.replace(/[^\w.:@-]+/g, "-").slice(0, maxNameChars) || "worker";
    if (this.#known.size >= maxKnownIds) return `${base}-${randomUUID()}`;
    let id = base;
    for (let n = 2; this.#known.has(id); n++) id = `${base}-${n}`;
    this.#known.set(id, { incarnation, deviceKind });
    this.#idsByLife.set(life, id);
    return id;
  }
}

/** An engine takes what it takes to be made, however short groups are. */
const withEngine = (leaseTimeoutMs: number): number =>
  Math.max(leaseTimeoutMs, defaultLeaseTimeoutMs);
