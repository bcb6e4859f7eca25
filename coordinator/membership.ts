import { LockstepError } from "#lib/core/errors/index";
import type { WorkerState } from "#lib/core/events";

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
}

interface Member extends WorkerInfo {
  readonly workerId: string;
  readonly lastSeenMs: number;
  readonly state: WorkerState;
}

interface MembershipOptions {
  /** Silence after which a worker counts as dead. */
  readonly heartbeatTimeoutMs: number;
  /** Refuse workers whose results could differ in their last bits. */
  readonly deterministic: boolean;
  /** The only kind of device that takes part where results must not differ. @default that of the first worker */
  readonly deviceKind?: string | undefined;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/** Who takes part, and when each was last heard. Knows nothing of sockets or timers. */
export class Membership {
  readonly #options: MembershipOptions;
  readonly #members = new Map<string, Member>();
  readonly #usedIds = new Set<string>();
  #firstDeviceKind: string | undefined;

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** Of the first worker that joined. */
  get firstDeviceKind(): string | undefined {
    return this.#firstDeviceKind;
  }

  get size(): number {
    return this.#members.size;
  }

  members(): readonly Member[] {
    return [...this.#members.values()];
  }

  find(workerId: string): Member | undefined {
    return this.#members.get(workerId);
  }

  /** One device kind holds for the whole run: the first worker's, or what it had before. @throws E_DEVICE_KIND_MISMATCH */
  join(info: WorkerInfo): Member {
    const { deterministic, deviceKind = this.#firstDeviceKind ?? info.deviceKind } = this.#options;
    if (deterministic && info.deviceKind !== deviceKind) {
      throw new LockstepError("E_DEVICE_KIND_MISMATCH", {
        worker: `${info.name || "unnamed"} (${info.host}, pid ${info.pid})`,
        expected: deviceKind,
        got: info.deviceKind,
      });
    }
    this.#firstDeviceKind ??= info.deviceKind;
    const { name, host, pid, deviceType, incarnation, secret } = info;
    const member: Member = {
      ...{ name, host, pid, deviceKind: info.deviceKind, deviceType, incarnation, secret },
      workerId: this.#uniqueId(info.name),
      lastSeenMs: this.#options.now(),
      state: "compiling",
    };
    this.#members.set(member.workerId, member);
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
    };
    this.#members.set(workerId, updated);
    return updated;
  }

  remove(workerId: string): Member | undefined {
    const member = this.#members.get(workerId);
    this.#members.delete(workerId);
    return member;
  }

  /** Members that were silent for too long; they are not removed yet. */
  silent(): readonly Member[] {
    const since = this.#options.now() - this.#options.heartbeatTimeoutMs;
    return this.members().filter((member) => member.lastSeenMs < since);
  }

  /** An id is never used twice, so that a late call of a dead worker cannot pass for a living one's. */
  #uniqueId(name: string): string {
    const base = name === "" ? "worker" : name;
    let id = base;
    for (let n = 2; this.#usedIds.has(id); n++) id = `${base}-${n}`;
    this.#usedIds.add(id);
    return id;
  }
}
