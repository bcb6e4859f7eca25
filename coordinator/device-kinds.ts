import { LockstepError } from "#lib/core/errors/index";
import { counted } from "#lib/core/format";
import type { RegisterRequest } from "#lib/wire/control-messages";

interface DeviceKindsOptions {
  /** Workers that the run was started for. */
  readonly plannedWorkers: number;
  /** Whether all workers must have one kind. */
  readonly deterministic: boolean;
  /** Kind that the run computed on before; undefined: it begins. */
  readonly fixedKind?: string | undefined;
  /** Whether a worker is one that the run started itself: only those choose. Absent: all of them do. */
  readonly isOwn?: ((incarnation: string) => boolean) | undefined;
  /** How long a kind that no more than half of the planned workers have is not chosen. @default 30000 */
  readonly waitMs?: number | undefined;
  /** How long nobody of the run's kind may be here while others are refused. @default 600000 */
  readonly forsakenAfterMs?: number | undefined;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

interface Voter {
  readonly kind: string;
  readonly incarnation: string;
  readonly firstMs: number;
  readonly lastMs: number;
  readonly isMember: boolean;
}

interface Life {
  readonly incarnation: string;
  readonly certificate?: string | undefined;
}

interface Watcher {
  /** Another kind than before is the run's: members of others are to go. */
  readonly switched: (kind: string) => void;
  /** Nobody of the run's kind is left, and those that come are of others. */
  readonly forsaken: (error: LockstepError) => void;
}

const defaultWaitMs = 30_000;
const defaultForsakenAfterMs = 600_000;
/** Who waits knocks far more often than this. */
const voteLastsMs = 5_000;
/** Beyond these nobody is counted; a run has no more members. */
const maxVoters = 4_096;

/**
 * Which kind of device a run computes on: equal bits need one. No single worker decides it for those that the run
 * was planned for: it is the kind that more than half of these have, or after a while the most frequent one of those
 * that are here. Until something that was computed counts it follows the majority; then it holds for good.
 */
export class DeviceKinds {
  readonly #options: DeviceKindsOptions;
  readonly #voters = new Map<string, Voter>();
  readonly #device: Promise<RegisterRequest>;
  #resolveDevice: (device: RegisterRequest) => void = () => {};
  #rejectDevice: (error: unknown) => void = () => {};
  #watcher: Watcher | undefined;
  #kind: string | undefined;
  #isFixed: boolean;
  /** Since when no member is here, and who was refused since. */
  #emptySinceMs: number;
  readonly #refused = new Set<string>();

  constructor(options: DeviceKindsOptions) {
    this.#options = options;
    this.#kind = options.deterministic ? options.fixedKind : undefined;
    this.#isFixed = this.#kind !== undefined;
    this.#emptySinceMs = options.now();
    this.#device = new Promise((resolve, reject) => {
      this.#resolveDevice = resolve;
      this.#rejectDevice = reject;
    });
    // Nobody may be waiting for it.
    this.#device.catch(() => {});
  }

  /** Whether all workers compute the same bits. */
  get deterministic(): boolean {
    return this.#options.deterministic;
  }

  /** The run's kind; undefined while it is open. */
  get kind(): string | undefined {
    return this.#kind;
  }

  /** Whom it takes to choose, for a person. */
  get awaited(): string {
    const { plannedWorkers, deterministic, isOwn, waitMs = defaultWaitMs } = this.#options;
    if (isOwn !== undefined || !deterministic || plannedWorkers === 1) return "the first worker";
    return `more than half of ${plannedWorkers} workers, ${waitMs / 1000} s at most`;
  }

  /** What a person is told while the kind is open. */
  get waiting(): string {
    return `${counted(this.#voters.size, "worker")} here; the kind of device is open until ${this.awaited}`;
  }

  watch(watcher: Watcher): void {
    this.#watcher = watcher;
  }

  /** A worker of the run's kind, once that is chosen; where the run has one of before, whichever comes first. */
  async device(): Promise<RegisterRequest> {
    return this.#device;
  }

  /** Whoever waits for the device waits in vain. */
  giveUp(error: unknown): void {
    this.#rejectDevice(error);
  }

  /** A worker is here and would like to take part. */
  knocked(device: RegisterRequest, certificate?: string): void {
    const { incarnation, deviceKind: kind } = device;
    const key = lifeOf(incarnation, certificate);
    const nowMs = this.#options.now();
    const before = this.#voters.get(key);
    this.#forgetGone(nowMs);
    if (before !== undefined || this.#voters.size < maxVoters) {
      const { firstMs = nowMs, isMember = false } = before ?? {};
      this.#voters.set(key, { kind, incarnation, firstMs, lastMs: nowMs, isMember });
    }
    this.#choose(nowMs);
    const isOfRun = this.#kind === kind || this.#options.fixedKind !== undefined;
    if (isOfRun && this.#chooses(incarnation)) this.#resolveDevice(device);
  }

  /**
   * @returns whether a worker that knocked may come in; if not, it is to ask again
   * @throws E_DEVICE_KIND_MISMATCH where it never may
   */
  admits(device: RegisterRequest, certificate?: string): boolean {
    this.knocked(device, certificate);
    if (this.#kind === undefined) return false;
    if (!this.#options.deterministic || this.#kind === device.deviceKind) return true;
    if (!this.#isFixed) return false;
    const { name, host, pid, deviceKind: got } = device;
    if (this.#refused.size < maxVoters) this.#refused.add(lifeOf(device.incarnation, certificate));
    this.#endIfForsaken(this.#kind, got);
    throw new LockstepError("E_DEVICE_KIND_MISMATCH", {
      worker: `${name || "unnamed"} (${host}, pid ${pid})`,
      expected: this.#kind,
      got,
    });
  }

  /** A worker is a member. */
  entered({ incarnation, certificate, deviceKind: kind }: Life & { deviceKind: string }): void {
    const nowMs = this.#options.now();
    const key = lifeOf(incarnation, certificate);
    const voter = { kind, incarnation, firstMs: nowMs, lastMs: nowMs, isMember: true };
    this.#voters.set(key, voter);
    this.#refused.clear();
  }

  /** A member is none any more. */
  left({ incarnation, certificate }: Life): void {
    this.#voters.delete(lifeOf(incarnation, certificate));
    this.#emptySinceMs = this.#options.now();
  }

  /** Something that was computed on a device of this kind is part of the run. */
  worked(kind: string): void {
    if (this.#isFixed) return;
    this.#isFixed = true;
    this.#set(kind);
  }

  #chooses(incarnation: string): boolean {
    return this.#options.isOwn?.(incarnation) ?? true;
  }

  #choose(nowMs: number): void {
    if (this.#isFixed) return;
    const { plannedWorkers, deterministic, isOwn, waitMs = defaultWaitMs } = this.#options;
    const voters = [...this.#voters.values()].filter(({ incarnation }) =>
      this.#chooses(incarnation),
    );
    const counts = new Map<string, number>();
    for (const { kind } of voters) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    // Of equally many the first.
    const [[leader, count] = ["", 0]] = [...counts].sort(([, one], [, other]) => other - one);
    if (count === 0) return;
    if (this.#kind === undefined) {
      const sinceMs = Math.min(...voters.map(({ firstMs }) => firstMs));
      const isMajority = isOwn !== undefined || count * 2 > plannedWorkers;
      if (!deterministic || isMajority || nowMs - sinceMs >= waitMs) this.#set(leader);
    } else if (deterministic && count > (counts.get(this.#kind) ?? 0)) {
      this.#set(leader);
    }
  }

  #set(kind: string): void {
    const before = this.#kind;
    this.#kind = kind;
    const isOther = before !== undefined && before !== kind;
    if (isOther && this.#options.deterministic) this.#watcher?.switched(kind);
  }

  #endIfForsaken(expected: string, got: string): void {
    const { plannedWorkers, forsakenAfterMs = defaultForsakenAfterMs, now } = this.#options;
    const emptyMs = now() - this.#emptySinceMs;
    const hasMembers = [...this.#voters.values()].some(({ isMember }) => isMember);
    // Who was refused beside workers that took part says nothing of whether others will come.
    if (hasMembers) this.#refused.clear();
    const { size: workers } = this.#refused;
    if (workers < plannedWorkers || emptyMs < forsakenAfterMs) return;
    const seconds = Math.round(emptyMs / 1000);
    const facts = { expected, got, seconds, workers };
    this.#watcher?.forsaken(new LockstepError("E_DEVICE_KIND_GONE", facts));
  }

  #forgetGone(nowMs: number): void {
    for (const [key, { isMember, lastMs }] of this.#voters) {
      if (!isMember && nowMs - lastMs > voteLastsMs) this.#voters.delete(key);
    }
  }
}

/** What tells a process from others: one that shows another certificate is another one, whatever it says. */
export const lifeOf = (incarnation: string, certificate = ""): string =>
  JSON.stringify([incarnation, certificate]);
