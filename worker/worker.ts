import os from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError } from "#lib/core/errors/index";
import type { WorkerState } from "#lib/core/events";
import type { EvaluatedBatch, LossSum, WorkerJob } from "#lib/core/job";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import { hasBf16Products, processorKind, readProcessor } from "#lib/core/processor";
import { ControlClient } from "#lib/wire/control-client";
import {
  type EvaluateTask,
  type GenerateTask,
  protocolVersion,
  type RegisterReply,
  type Task,
  type TaskResult,
  type TrainTask,
} from "#lib/wire/control-messages";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { createProcessorReader } from "./device.js";
import { EngineClient, EngineFailure } from "./engine-client.js";
import { isEngineError, isFatal, isTransferFailure } from "./failures.js";
import type { DeviceReading, WorkerOptions, WorkerOutcome } from "./options.js";
import { firstBackoffMs, soonAfter, untilReachable } from "./reachable.js";
import { Session } from "./session.js";
import { ShardTransfers } from "./transfers.js";

/** How long one NextTask call waits for work. */
const longPollMs = 20_000;
const defaultReconnectTimeoutMs = 60_000;

/**
 * Takes part in a job until it is over: registers, leases work, computes it in the engine thread,
 * pushes gradients to all shards and reports, while the next group is computed. Survives a coordinator
 * that is away for a while, and being declared dead by mistake.
 *
 * @throws E_COORDINATOR_UNREACHABLE, E_RPC_FAILED (refused: token, device kind, version),
 *   E_ENGINE_FAILED, E_ENGINE_CRASHED
 */
export async function runWorker(options: WorkerOptions): Promise<WorkerOutcome> {
  const loop = new WorkerLoop(options);
  try {
    return await loop.run();
  } finally {
    await loop.close();
  }
}

class WorkerLoop {
  readonly #options: WorkerOptions;
  readonly #control: ControlClient;
  readonly #readDevice: () => DeviceReading;
  readonly #startedAt = performance.now();
  #session: Session | undefined;
  #engine: { readonly client: EngineClient; readonly job: WorkerJob } | undefined;
  /** Version that the engine holds. */
  #version: number | undefined;
  #state: WorkerState = "compiling";
  #heartbeat: NodeJS.Timeout | undefined;
  #numGroups = 0;
  /** Aborted when the worker is to leave, at once or after its group. */
  readonly #leaving: AbortSignal;
  /** Aborted when no answer is waited for any more: a task that is on its way is still done. */
  readonly #impatient: AbortSignal;
  /** That, or the end of the session. */
  #asking: AbortSignal;

  constructor(options: WorkerOptions) {
    this.#options = options;
    const ends = [options.signal, options.drain].filter((signal) => signal !== undefined);
    this.#leaving = AbortSignal.any(ends);
    this.#impatient = soonAfter(options.drain);
    this.#asking = this.#impatient;
    this.#control = new ControlClient({
      address: options.coordinatorAddress,
      security: options.security ?? {},
    });
    this.#readDevice = options.readDevice ?? createProcessorReader();
  }

  async run(): Promise<WorkerOutcome> {
    const ended = (outcome: WorkerOutcome["outcome"]): WorkerOutcome => ({
      outcome,
      numGroups: this.#numGroups,
    });
    while (!this.#leaving.aborted) {
      try {
        await this.#join();
        while (this.#session !== undefined) {
          const task = await this.#nextTask();
          if (task === undefined) break;
          if (task.kind === "finished") {
            await this.#leave(task.reason);
            return ended(task.interrupted ? "interrupted" : "finished");
          }
          if (task.kind !== "wait") await this.#perform(task);
        }
        await this.#leave("it was asked to stop");
      } catch (thrown) {
        // What a delivery failed with is the cause of what its end made fail.
        const error = this.#session?.failure ?? thrown;
        await this.#session?.close();
        if (remoteErrorCode(error) === "E_RUN_OVER") return ended("finished");
        if (this.#leaving.aborted) {
          await this.#leave("it was asked to stop");
        } else if (remoteErrorCode(error) === "E_UNKNOWN_WORKER") {
          this.#options.observer?.retrying?.(error);
        } else if (isTransferFailure(error)) {
          this.#options.observer?.retrying?.(error);
          await this.#report(error, false);
          await delay(firstBackoffMs);
        } else throw error;
      }
    }
    return ended("left");
  }

  async close(): Promise<void> {
    clearInterval(this.#heartbeat);
    await this.#session?.close();
    this.#control.close();
    await this.#engine?.client.close();
  }

  async #join(): Promise<void> {
    const options = this.#options;
    clearInterval(this.#heartbeat);
    await this.#session?.close();
    this.#session = undefined;
    if (this.#engine !== undefined) this.#setState("idle");
    const reply = await this.#register();
    if (reply === undefined) return;
    const job = JSON.parse(reply.jobJson) as WorkerJob;
    this.#session = new Session(
      reply.workerId,
      new ShardTransfers({
        layout: job.layout,
        addresses: reply.shardAddresses,
        security: options.security ?? {},
      }),
      options.signal,
    );
    this.#asking = AbortSignal.any([this.#session.signal, this.#impatient]);
    options.observer?.registered?.(reply.workerId);
    this.#startHeartbeats(reply);
    if (this.#engine?.job.jobId !== job.jobId) await this.#createEngine(job);
    if (job.frozen !== undefined) await this.#loadFrozen(job.frozen);
    // A coordinator that came back may publish other parameters under the same number.
    this.#version = undefined;
    this.#setState("idle");
  }

  /** @returns undefined when the worker was asked to stop before the job was known */
  async #register(): Promise<RegisterReply | undefined> {
    const { name, deviceKind, deviceType, advice } = this.#options;
    const request = {
      protocolVersion,
      name: name ?? "",
      host: os.hostname(),
      pid: process.pid,
      deviceKind: deviceKind ?? processorKind(readProcessor()),
      deviceType: deviceType ?? "cpu",
      advisesBf16: advice?.bf16 ?? hasBf16Products(readProcessor()),
      bf16Slowdown: advice?.bf16Slowdown ?? 0,
    };
    for (;;) {
      const register = async (): Promise<RegisterReply> => this.#control.register(request);
      const reply = await this.#untilReachable(register, this.#leaving);
      if (reply.retryAfterMs === 0) return reply;
      await delay(reply.retryAfterMs, undefined, { signal: this.#leaving }).catch(() => {});
      if (this.#leaving.aborted) return undefined;
    }
  }

  async #createEngine(job: WorkerJob): Promise<void> {
    this.#setState("compiling");
    await this.#engine?.client.close();
    this.#engine = undefined;
    const engineModule = this.#options.engineModule ?? import.meta.resolve("#lib/tuning/engine");
    try {
      this.#engine = { client: await EngineClient.create(engineModule, job), job };
      this.#options.observer?.engineCreated?.(this.#engine.client.plannedBytes);
    } catch (error) {
      await this.#report(error, isFatal(error));
      throw error;
    }
  }

  /** Once for an engine: the weights beside a job's adapters stay what they are. */
  async #loadFrozen(frozen: ParameterLayout): Promise<void> {
    const { client } = this.#engineInUse();
    if (client.hasFrozen) return;
    this.#setState("loading");
    const { transfers, signal } = this.#joined();
    const onRetry = (error: unknown): void => this.#options.observer?.retrying?.(error);
    await client.loadFrozen(frozen, async (range, into) =>
      transfers.pullFrozen(frozen, range, into, { signal, onRetry }),
    );
  }

  #startHeartbeats(reply: RegisterReply): void {
    const beat = (): void => {
      this.#control
        .heartbeat({
          workerId: reply.workerId,
          state: this.#state,
          ...this.#readDevice(),
          deviceSeconds: (performance.now() - this.#startedAt) / 1000,
        })
        // Being unknown or unheard shows in the loop, which knows what to do about it.
        .catch((error: unknown) => this.#options.observer?.retrying?.(error));
    };
    beat();
    this.#heartbeat = setInterval(beat, reply.heartbeatIntervalMs);
  }

  /** @returns undefined when the worker was asked to stop */
  async #nextTask(): Promise<Task | undefined> {
    const session = this.#joined();
    const { workerId } = session;
    this.#setState(session.heldLeases.length > 0 ? "sending" : "idle");
    await session.untilBufferFree();
    await this.#options.onPhase?.({ phase: "asking" });
    const signal = this.#asking;
    const ask = async (): Promise<Task> => {
      session.throwIfFailed();
      const { heldLeases } = session;
      return this.#control.nextTask({ workerId, maxWaitMs: longPollMs, heldLeases }, signal);
    };
    try {
      if (!this.#leaving.aborted) return await this.#untilReachable(ask, signal);
    } catch (error) {
      if (!this.#leaving.aborted) throw error;
    }
    await session.untilSent();
    return undefined;
  }

  async #perform(task: TrainTask | EvaluateTask | GenerateTask): Promise<void> {
    try {
      if (!(await this.#ensureVersion(task.version))) return;
      if (task.kind === "train") await this.#train(task);
      else await this.#infer(task);
    } catch (error) {
      if (isEngineError(error)) {
        await this.#report(error, isFatal(error), task.lease);
      }
      throw error;
    }
  }

  /** @returns false when the version is gone: the lease is stale */
  async #ensureVersion(version: number): Promise<boolean> {
    if (this.#version === version) return true;
    const { client } = this.#engineInUse();
    this.#setState("loading");
    this.#version = undefined;
    try {
      const { transfers, signal } = this.#joined();
      await transfers.pull(version, client.parameters, {
        signal,
        onRetry: (error) => this.#options.observer?.retrying?.(error),
      });
    } catch (error) {
      if (remoteErrorCode(error) === "E_VERSION_NOT_PUBLISHED") return false;
      throw error;
    }
    this.#options.observer?.bytesTransferred?.("parameters", client.parameters.length);
    await client.loadParameters();
    this.#version = version;
    this.#options.observer?.parametersLoaded?.(version);
    return true;
  }

  /** Computes a group, and starts to send it. */
  async #train(task: TrainTask): Promise<void> {
    const { step, group, lease } = task;
    const { client } = this.#engineInUse();
    const { onPhase, observer } = this.#options;
    const session = this.#joined();
    const startedAt = performance.now();
    await onPhase?.({ phase: "leased", step, group });
    this.#setState("computing");
    const buffer = session.freeBuffer();
    const sums: LossSum[] = [];
    for (const batch of task.batches) {
      session.throwIfFailed();
      const batchStartedAt = performance.now();
      const isFirst = sums.length === 0;
      const isLast = sums.length === task.batches.length - 1;
      const sum = await client.accumulate(
        batch,
        task.gradScale,
        isFirst,
        isLast ? buffer : undefined,
      );
      sums.push(sum);
      observer?.microBatchComputed?.({
        numTokens: batch.fields["tokens"]?.length ?? 0,
        seconds: (performance.now() - batchStartedAt) / 1000,
      });
    }
    await onPhase?.({ phase: "computed", step, group });
    session.start(buffer, lease, async () => {
      await this.#deliver(session, task, buffer, sums, startedAt);
      if (this.#state === "sending" && session.heldLeases.length === 1) this.#setState("idle");
    });
  }

  /** Pushes a group's gradient and reports its losses; other groups may be computed meanwhile. */
  async #deliver(
    { workerId, transfers, signal }: Session,
    { step, group, lease }: TrainTask,
    buffer: number,
    sums: readonly LossSum[],
    startedAt: number,
  ): Promise<void> {
    const { onPhase, observer } = this.#options;
    const gradients = this.#engineInUse().client.gradients(buffer);
    await transfers.push({ workerId, step, group, lease }, gradients, {
      signal,
      onRetry: (error) => observer?.retrying?.(error),
      onChunk:
        onPhase === undefined
          ? undefined
          : async (shard, sentBytes) =>
              onPhase({ phase: "pushing", step, group, shard, sentBytes }),
    });
    observer?.bytesTransferred?.("gradients", gradients.length);
    await onPhase?.({ phase: "pushed", step, group });
    const stale = await this.#complete(lease, { kind: "losses", sums });
    this.#numGroups += 1;
    observer?.groupCompleted?.({
      step,
      group,
      seconds: (performance.now() - startedAt) / 1000,
      stale,
    });
    await onPhase?.({ phase: "completed", step, group, stale });
  }

  async #infer(task: EvaluateTask | GenerateTask): Promise<void> {
    const { client } = this.#engineInUse();
    this.#setState("computing");
    if (task.kind === "generate") {
      const ids = await client.generate(task.prompt, task.maxNewTokens, task.endTokenIds);
      await this.#complete(task.lease, { kind: "tokens", ids: [...ids] });
      return;
    }
    const sums: EvaluatedBatch[] = [];
    for (const batch of task.batches) sums.push(await client.evaluate(batch));
    await this.#complete(task.lease, { kind: "losses", sums });
  }

  async #complete(lease: number, result: TaskResult): Promise<boolean> {
    const { workerId, signal } = this.#joined();
    const { stale } = await this.#untilReachable(
      async () => this.#control.completeTask({ workerId, lease, result }, signal),
      signal,
    );
    return stale;
  }

  async #leave(reason: string): Promise<void> {
    clearInterval(this.#heartbeat);
    const workerId = this.#session?.workerId;
    // The coordinator may be gone already, which is as good.
    if (workerId !== undefined) await this.#control.leave({ workerId, reason }).catch(() => {});
  }

  async #report(error: unknown, fatal: boolean, lease = 0): Promise<void> {
    const workerId = this.#session?.workerId ?? "";
    const failure = error instanceof EngineFailure ? error.engineError : undefined;
    const code = failure?.code || (isLockstepError(error) ? error.code : "");
    const message = failure?.message ?? (error instanceof Error ? error.message : String(error));
    await this.#control.reportFailure({ workerId, lease, code, message, fatal }).catch(() => {});
  }

  async #untilReachable<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const { observer, coordinatorAddress: address, reconnectTimeoutMs } = this.#options;
    const timeoutMs = reconnectTimeoutMs ?? defaultReconnectTimeoutMs;
    const onRetry = (error: unknown): void => observer?.retrying?.(error);
    return untilReachable(call, { address, timeoutMs, signal, onRetry });
  }

  #setState(state: WorkerState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.observer?.stateChanged?.(state);
  }

  #joined(): Session {
    if (this.#session === undefined) throw new Error("the worker has not registered");
    return this.#session;
  }

  #engineInUse(): { readonly client: EngineClient } {
    if (this.#engine === undefined) throw new Error("the worker has no engine");
    return this.#engine;
  }
}
