import { randomBytes } from "node:crypto";
import type { Precision } from "#lib/core/dtype";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { answeredSoon } from "./answered-soon.js";
import { maxAskAgainAfterMs, maxWaitForTaskMs } from "./limits.js";
import type {
  CheckWeightsReply,
  CheckWeightsRequest,
  CompleteTaskReply,
  CompleteTaskRequest,
  ControlHandlers,
  HeartbeatReply,
  HeartbeatRequest,
  Knock,
  LeaveRequest,
  NextTaskRequest,
  RegisterReply,
  RegisterRequest,
  ReportFailureRequest,
  Task,
} from "#lib/wire/control-messages";
import type { EventBus } from "#lib/wire/event-bus";
import { assertSameCertificate, isSameSecret, type MemberPass } from "#lib/wire/member";
import type { FenceChange } from "#lib/wire/reducer-messages";
import { type Membership, stuckLeaseTimes } from "./membership.js";
import type { Quarantine } from "./quarantine.js";
import { assertSameLife, type RunLife } from "./reducer/fence.js";
import type { ShardGroup } from "./shards.js";
import type { Strays } from "./strays.js";
import type { TaskQueue } from "./task-queue.js";
import { WeightChecks, type WeightVerdict } from "./weight-checks.js";

interface ControlServiceOptions {
  readonly life: RunLife;
  readonly membership: Membership;
  readonly strays: Strays;
  readonly quarantine: Quarantine;
  readonly queue: TaskQueue;
  readonly shards: Pick<ShardGroup, "changeFence">;
  readonly bus: EventBus;
  readonly jobJson: string;
  readonly precision: Precision;
  /** Of now. */
  readonly shardAddresses: () => readonly string[];
  readonly heartbeatIntervalMs: number;
  /** Workers that the run was started for. */
  readonly plannedWorkers: number;
  /** Who comes beyond these waits for a place; undefined: nobody does. */
  readonly maxWorkers: number | undefined;
  readonly leaseTimeoutMs: number;
  /** The run cannot go on: nobody is left who could, or what workers were sent differs. */
  readonly endRun: (error: LockstepError) => void;
  readonly onMembersChanged: () => void;
  /** Of the parameters that the next tasks are of. */
  readonly version: () => number;
}

/** A worker whose weights change so often has faulty memory: it is not asked again. */
const maxCorruptions = 3;
/** Workers that wait for a place and were told of; beyond these none is told of again. */
const maxWaitingTold = 4_096;

const silentShard =
  "a reducer does not answer; if it is lost, the run goes on without it or goes back";

/** Bytes of a registration's secret. */
const secretBytes = 16;

/** Answers the workers' control calls, and declares silent ones dead. */
export class ControlService implements ControlHandlers {
  readonly #options: ControlServiceOptions;
  /** Incarnations that wait for a place, and were told of. */
  readonly #waiting = new Set<string>();
  readonly #weightChecks = new WeightChecks();
  /** Who knows nothing of its registration yet, and sends no heartbeats. */
  readonly #admitting = new Set<string>();
  /** Of workers that were told to come again, as a shard did not answer. */
  readonly #lateAdmissions = new Set<string>();
  /** Members whose weights cannot be compared, and that were told of. */
  readonly #unchecked = new Set<string>();

  constructor(options: ControlServiceOptions) {
    this.#options = options;
  }

  /** @throws E_WORKER_QUARANTINED, E_TOO_MANY_WORKERS */
  async register(request: RegisterRequest, { certificate }: Knock): Promise<RegisterReply> {
    const { membership, quarantine, bus, life } = this.#options;
    const { jobJson, heartbeatIntervalMs } = this.#options;
    const kept = quarantine.verdictOf(request.incarnation);
    if (kept !== undefined && "banReason" in kept) {
      const worker = `${request.name || "unnamed"} (${request.host}, pid ${request.pid})`;
      throw new LockstepError("E_WORKER_QUARANTINED", { worker, reason: kept.banReason });
    }
    if (kept !== undefined) {
      return laterReply(
        Math.min(kept.waitMs, maxAskAgainAfterMs),
        "it is kept out for a while, as it failed again and again",
      );
    }
    // A process that registers again has lost its former life, whether or not anybody noticed.
    for (const former of membership.members()) {
      const isItself =
        former.incarnation === request.incarnation && former.certificate === certificate;
      if (isItself) {
        this.removeWorker(former.workerId, "it registered again");
      }
    }
    // What the shards are to hear is not heaped up.
    if (this.#lateAdmissions.size > 0) return laterReply(maxAskAgainAfterMs, silentShard);
    const full = this.#noPlace(request);
    if (full !== undefined) return laterReply(maxAskAgainAfterMs, full);
    const memberSecret = randomBytes(secretBytes).toString("hex");
    const member = membership.join({ ...request, secret: memberSecret, certificate });
    const { workerId, host, pid, deviceKind, deviceType } = member;
    // Before the worker knows of it, so that no shard hears of it first from the worker.
    const admission = { kind: "admit", workerId, secret: memberSecret, certificate } as const;
    if (!(await this.#admitted(admission))) return laterReply(maxAskAgainAfterMs, silentShard);
    const { bf16Slowdown, fp16Slowdown } = request;
    const { precision } = this.#options;
    bus.publish({
      type: "worker.joined",
      ...{ workerId, host, pid, deviceKind, deviceType },
      ...(precision === "bf16" && bf16Slowdown > 0 ? { bf16Slowdown } : {}),
      ...(precision === "fp16" && deviceType === "cpu" ? { fp16Slowdown } : {}),
    });
    this.#options.onMembersChanged();
    return {
      ...{ workerId, jobJson, heartbeatIntervalMs, retryAfterMs: 0 },
      shardAddresses: this.#options.shardAddresses(),
      waitReason: "",
      ...{ runId: life.runId, epoch: life.epoch, memberSecret },
    };
  }

  /**
   * Tells the shards of a member, who is none where they do not hear of it.
   * @returns false where one of them does not answer for now
   */
  async #admitted(admission: FenceChange & { readonly kind: "admit" }): Promise<boolean> {
    const { membership, shards } = this.#options;
    const { workerId } = admission;
    let isAdmitted = false;
    this.#admitting.add(workerId);
    try {
      const heard = shards.changeFence(admission);
      isAdmitted = await answeredSoon(heard);
      if (!isAdmitted) {
        this.#lateAdmissions.add(workerId);
        const settled = (): void => {
          this.#lateAdmissions.delete(workerId);
          shards.changeFence({ kind: "expel", workerId }).catch(() => {});
        };
        heard.then(settled, settled);
      }
      return isAdmitted;
    } finally {
      this.#admitting.delete(workerId);
      if (isAdmitted) membership.seen(workerId);
      else membership.remove(workerId);
    }
  }

  /** @returns why a worker has to wait; undefined where there is a place for it */
  #noPlace({ name, host, pid, incarnation }: RegisterRequest): string | undefined {
    const { membership, maxWorkers, leaseTimeoutMs, queue, bus } = this.#options;
    if (maxWorkers !== undefined && membership.size >= maxWorkers) {
      const stuck = membership.stuck(leaseTimeoutMs, (workerId) => queue.isWaiting(workerId));
      const time = `${stuckLeaseTimes} x lease_timeout_ms`;
      const why = `it lives, and has asked for no work for more than ${time}; others wait for its place`;
      if (stuck !== undefined) this.removeWorker(stuck.workerId, why);
    }
    if (maxWorkers === undefined || membership.size < maxWorkers) {
      this.#waiting.delete(incarnation);
      return undefined;
    }
    const reason = `max_workers is ${maxWorkers}, and as many take part: it takes the place of one that leaves`;
    if (!this.#waiting.has(incarnation) && this.#waiting.size < maxWaitingTold) {
      this.#waiting.add(incarnation);
      const worker = `${name || "a worker without a name"} (${host}, pid ${pid})`;
      bus.publish({ type: "note", text: `${worker} waits: ${reason}` });
    }
    return reason;
  }

  admit(pass: MemberPass, workerId: string): void {
    assertSameLife(this.#options.life, pass);
    const member = this.#options.membership.find(workerId);
    const isItself = pass.workerId === workerId && isSameSecret(member?.secret ?? "", pass.secret);
    if (member === undefined || !isItself) {
      this.#awaitAgain(workerId);
      throw new LockstepError("E_UNKNOWN_WORKER", { worker: workerId });
    }
    assertSameCertificate(member.certificate, pass);
  }

  async nextTask(request: NextTaskRequest, signal: AbortSignal): Promise<Task> {
    const { membership, queue } = this.#options;
    membership.asked(request.workerId);
    const maxWaitMs = Math.min(request.maxWaitMs, maxWaitForTaskMs);
    return queue.next(request.workerId, maxWaitMs, signal, request.heldLeases);
  }

  async completeTask(request: CompleteTaskRequest): Promise<CompleteTaskReply> {
    const { membership, queue } = this.#options;
    membership.seen(request.workerId);
    try {
      return { stale: queue.complete(request) };
    } catch (error) {
      const { code, message } = errorText(error);
      if (code === "E_TOKEN_COUNT") this.ban(request.workerId, message);
      else this.#failed(request.workerId, { code, message });
      throw error;
    }
  }

  async checkWeights(request: CheckWeightsRequest): Promise<CheckWeightsReply> {
    const { membership, queue, bus, endRun } = this.#options;
    const { workerId, version } = request;
    const { incarnation } = membership.seen(workerId);
    let verdict: WeightVerdict;
    try {
      verdict = this.#weightChecks.check(request, incarnation);
    } catch (error) {
      if (isLockstepError(error)) endRun(error);
      throw error;
    }
    if (verdict.kind === "unknown" && !this.#unchecked.has(workerId)) {
      this.#unchecked.add(workerId);
      const text = `fingerprint_steps: the weights of ${workerId} are not compared, as its engine cannot read them back (readHeld)`;
      bus.publish({ type: "note", text });
    }
    if (verdict.kind !== "corrupted") return { isIntact: true };
    const { spaces, intactVersion, numFound } = verdict;
    bus.publish({
      type: "worker.corrupted",
      ...{ workerId, spaces, version },
      ...(intactVersion === undefined ? {} : { intactVersion }),
    });
    queue.releaseLease(request.lease, "its weights had changed in memory", workerId);
    if (numFound >= maxCorruptions) {
      this.ban(workerId, `its weights had changed in memory ${numFound} times`);
    }
    return { isIntact: false };
  }

  async heartbeat(request: HeartbeatRequest): Promise<HeartbeatReply> {
    const { membership, bus } = this.#options;
    const before = membership.find(request.workerId);
    const { workerId, deviceType, state } = membership.seen(request.workerId, request.state);
    if (before?.state !== state) bus.publish({ type: "worker.state", workerId, state });
    bus.publish({
      type: "worker.telemetry",
      workerId,
      deviceType,
      utilization: request.utilization,
      memoryUsedBytes: request.memoryUsedBytes,
      memoryTotalBytes: request.memoryTotalBytes,
      deviceSeconds: request.deviceSeconds,
    });
    return { version: this.#options.version() };
  }

  async leave(request: LeaveRequest): Promise<void> {
    this.removeWorker(request.workerId, request.reason, "worker.left");
  }

  async reportFailure(request: ReportFailureRequest): Promise<void> {
    const { workerId, lease, code, message, fatal } = request;
    if (lease !== 0) this.#options.queue.releaseLease(lease, message, workerId);
    const reason = `${code} ${message}`.trim();
    if (fatal) this.ban(workerId, reason, { code, message });
    else this.#failed(workerId, { code, message });
    this.removeWorker(workerId, reason);
    this.#awaitAgain(workerId);
  }

  /** A worker that is none any more, and knows it, registers anew unless it is out for good. */
  #awaitAgain(workerId: string): void {
    const { membership, quarantine, strays } = this.#options;
    const incarnation = membership.incarnationOf(workerId);
    if (incarnation === undefined || membership.find(workerId) !== undefined) return;
    const verdict = quarantine.verdictOf(incarnation);
    if (verdict === undefined || "waitMs" in verdict) strays.noted(incarnation);
  }

  /** A worker did what it could not have done by accident of a connection: it is not asked again. */
  ban(workerId: string, reason: string, failure = { code: "", message: reason }): void {
    const { membership, quarantine, bus } = this.#options;
    // It may have left, or be taken for lost: it is not let in again.
    const incarnation = membership.incarnationOf(workerId);
    if (incarnation === undefined) return;
    const before = quarantine.verdictOf(incarnation);
    // One that is out for good may be found out in several groups.
    if (before !== undefined && "banReason" in before) return;
    quarantine.ban(incarnation, reason);
    bus.publish({ type: "worker.quarantined", workerId, reason });
    this.removeWorker(workerId, reason);
    this.#endIfNobodyIsLeft(workerId, failure, 1);
  }

  /** A worker failed: it is asked again, unless it does so again and again. */
  #failed(workerId: string, failure: { readonly code: string; readonly message: string }): void {
    const { membership, quarantine, bus } = this.#options;
    const member = membership.find(workerId);
    if (member === undefined) return;
    const attempts = quarantine.failuresOf(member.incarnation) + 1;
    const pauseMs = quarantine.failed(member.incarnation);
    if (pauseMs === 0) return;
    const reason = `${attempts} failures without a result, the last: ${failure.code} ${failure.message}`;
    bus.publish({ type: "worker.quarantined", workerId, reason, seconds: pauseMs / 1000 });
    this.removeWorker(workerId, reason);
    this.#endIfNobodyIsLeft(workerId, failure, attempts);
  }

  /** A worker's whole result is here: a report alone proves nothing. */
  brought(workerId: string): void {
    const { membership, quarantine } = this.#options;
    const incarnation = membership.incarnationOf(workerId);
    if (incarnation !== undefined) quarantine.succeeded(incarnation);
    membership.worked(workerId);
  }

  /** What a worker promised did not come. */
  brokePromise(workerId: string, message: string): void {
    this.#failed(workerId, { code: "", message });
  }

  #endIfNobodyIsLeft(
    worker: string,
    { code, message: reason }: { readonly code: string; readonly message: string },
    attempts: number,
  ): void {
    const { membership, quarantine, plannedWorkers, endRun } = this.#options;
    if (membership.size > 0 || quarantine.numOutSinceProgress < plannedWorkers) return;
    endRun(new LockstepError("E_WORKER_FAILED", { worker, code, reason, attempts }));
  }

  /** Workers join anew, and are told where the shards are. */
  letJoinAgain(reason: string): void {
    for (const { workerId } of this.#options.membership.members()) {
      this.removeWorker(workerId, `${reason}, and it joins again`, "worker.left");
    }
  }

  removeWorker(
    workerId: string,
    reason: string,
    type: "worker.lost" | "worker.left" = "worker.lost",
  ): void {
    const { membership, queue, shards, bus, onMembersChanged } = this.#options;
    if (membership.remove(workerId) === undefined) return;
    this.#unchecked.delete(workerId);
    // A shard that is gone has ended the run already.
    shards.changeFence({ kind: "expel", workerId }).catch(() => {});
    bus.publish({ type, workerId, reason });
    queue.releaseWorker(workerId, `${workerId} was lost: ${reason}`);
    onMembersChanged();
  }

  /** Members of other kinds of device than the run's. */
  removeOtherKinds(kind: string): void {
    const { membership, bus } = this.#options;
    const others = membership.members().filter(({ deviceKind }) => deviceKind !== kind);
    for (const { workerId, deviceKind } of others) {
      this.removeWorker(workerId, `its device is "${deviceKind}", and most workers have "${kind}"`);
    }
    const text = `the run computes on devices of the kind "${kind}", which most workers have`;
    bus.publish({ type: "note", text });
  }

  /** To be called regularly. */
  removeSilentWorkers(): void {
    for (const { workerId } of this.#options.membership.silent()) {
      if (!this.#admitting.has(workerId)) this.removeWorker(workerId, "it sent no heartbeat");
    }
  }
}

const errorText = (error: unknown): { readonly code: string; readonly message: string } =>
  isLockstepError(error)
    ? { code: error.code, message: error.message }
    : { code: "", message: error instanceof Error ? error.message : String(error) };

/** What a worker is told that has to register again. */
export const laterReply = (retryAfterMs: number, waitReason: string): RegisterReply => ({
  ...{ workerId: "", jobJson: "", shardAddresses: [], heartbeatIntervalMs: 0 },
  ...{ runId: "", epoch: 0, memberSecret: "", retryAfterMs, waitReason },
});
