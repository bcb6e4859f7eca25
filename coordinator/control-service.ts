import type { Precision } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { maxWaitForTaskMs } from "./limits.js";
import type {
  CompleteTaskReply,
  CompleteTaskRequest,
  ControlHandlers,
  HeartbeatRequest,
  LeaveRequest,
  NextTaskRequest,
  RegisterReply,
  RegisterRequest,
  ReportFailureRequest,
  Task,
} from "#lib/wire/control-messages";
import type { EventBus } from "#lib/wire/event-bus";
import type { Membership } from "./membership.js";
import type { TaskQueue } from "./task-queue.js";

interface ControlServiceOptions {
  readonly membership: Membership;
  readonly queue: TaskQueue;
  readonly bus: EventBus;
  readonly jobJson: string;
  readonly precision: Precision;
  readonly shardAddresses: readonly string[];
  readonly heartbeatIntervalMs: number;
  /** Ends the run: every worker would fail in the same way. */
  readonly onFatalFailure: (error: LockstepError) => void;
  readonly onWorkerJoined: () => void;
}

/** Failures in a row, without a result in between, after which the run is given up. */
const maxFailuresInARow = 5;

/** Answers the workers' control calls, and declares silent ones dead. */
export class ControlService implements ControlHandlers {
  readonly #options: ControlServiceOptions;
  #failuresInARow = 0;

  constructor(options: ControlServiceOptions) {
    this.#options = options;
  }

  async register(request: RegisterRequest): Promise<RegisterReply> {
    const { membership, bus, jobJson, shardAddresses, heartbeatIntervalMs } = this.#options;
    // A process that registers again has lost its former life, whether or not anybody noticed.
    for (const former of membership.members()) {
      if (former.host === request.host && former.pid === request.pid) {
        this.removeWorker(former.workerId, "it registered again");
      }
    }
    const { workerId, host, pid, deviceKind, deviceType } = membership.join(request);
    const { bf16Slowdown, fp16Slowdown } = request;
    const { precision } = this.#options;
    bus.publish({
      type: "worker.joined",
      ...{ workerId, host, pid, deviceKind, deviceType },
      ...(precision === "bf16" && bf16Slowdown > 0 ? { bf16Slowdown } : {}),
      ...(precision === "fp16" && deviceType === "cpu" ? { fp16Slowdown } : {}),
    });
    this.#options.onWorkerJoined();
    return { workerId, jobJson, shardAddresses, heartbeatIntervalMs, retryAfterMs: 0 };
  }

  async nextTask(request: NextTaskRequest, signal: AbortSignal): Promise<Task> {
    const { membership, queue } = this.#options;
    membership.seen(request.workerId);
    const maxWaitMs = Math.min(request.maxWaitMs, maxWaitForTaskMs);
    return queue.next(request.workerId, maxWaitMs, signal, request.heldLeases);
  }

  async completeTask(request: CompleteTaskRequest): Promise<CompleteTaskReply> {
    // The result of a worker that was declared dead is as good as any other.
    if (this.#options.membership.has(request.workerId)) {
      this.#options.membership.seen(request.workerId);
    }
    const stale = this.#options.queue.complete(request);
    if (!stale) {
      this.#failuresInARow = 0;
      this.#options.membership.worked(request.workerId);
    }
    return { stale };
  }

  async heartbeat(request: HeartbeatRequest): Promise<void> {
    const { membership, bus } = this.#options;
    const before = membership.members().find((member) => member.workerId === request.workerId);
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
  }

  async leave(request: LeaveRequest): Promise<void> {
    this.removeWorker(request.workerId, request.reason, "worker.left");
  }

  async reportFailure(request: ReportFailureRequest): Promise<void> {
    this.#failuresInARow += 1;
    if (request.lease !== 0) this.#options.queue.releaseLease(request.lease, request.message);
    this.removeWorker(request.workerId, `${request.code} ${request.message}`.trim());
    if (request.fatal || this.#failuresInARow >= maxFailuresInARow) {
      this.#options.onFatalFailure(
        new LockstepError("E_WORKER_FAILED", {
          worker: request.workerId,
          code: request.code,
          reason: request.message,
          attempts: this.#failuresInARow,
        }),
      );
    }
  }

  removeWorker(
    workerId: string,
    reason: string,
    type: "worker.lost" | "worker.left" = "worker.lost",
  ): void {
    const { membership, queue, bus } = this.#options;
    if (membership.remove(workerId) === undefined) return;
    bus.publish({ type, workerId, reason });
    queue.releaseWorker(workerId, `${workerId} was lost: ${reason}`);
  }

  /** To be called regularly. */
  removeSilentWorkers(): void {
    for (const { workerId } of this.#options.membership.silent()) {
      this.removeWorker(workerId, "it sent no heartbeat");
    }
  }
}
