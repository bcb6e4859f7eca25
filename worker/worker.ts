import { setTimeout as delay } from "node:timers/promises";
import type { WorkerState } from "#lib/core/events";
import type { EvaluatedBatch, WorkerJob } from "#lib/core/job";
import type { EvaluateTask, GenerateTask, Task, TrainTask } from "#lib/wire/control-messages";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { CoordinatorLink, passOf } from "./coordinator-link.js";
import { isEngineError, isFatal, isMembershipOver, isTransferFailure } from "./failures.js";
import { GradientGroup } from "./group.js";
import { LoadedEngine } from "./loaded-engine.js";
import type { WorkerOptions, WorkerOutcome } from "./options.js";
import { firstBackoffMs, soonAfter } from "./reachable.js";
import { Session } from "./session.js";
import { ShardTransfers } from "./transfers.js";

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
  readonly #link: CoordinatorLink;
  #session: Session | undefined;
  #engine: LoadedEngine | undefined;
  #state: WorkerState = "compiling";
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
    this.#link = new CoordinatorLink(options);
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
        } else if (isMembershipOver(error)) {
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
    this.#link.stopHeartbeats();
    await this.#session?.close();
    this.#link.close();
    await this.#engine?.client.close();
  }

  /** Registers and gets ready to compute; without a session afterwards, the worker was asked to stop. */
  async #join(): Promise<void> {
    const options = this.#options;
    this.#link.stopHeartbeats();
    await this.#session?.close();
    this.#session = undefined;
    if (this.#engine !== undefined) this.#setState("idle");
    const reply = await this.#link.register(this.#leaving);
    if (reply === undefined) return;
    const job = JSON.parse(reply.jobJson) as WorkerJob;
    const session = new Session(
      reply.workerId,
      new ShardTransfers({
        layout: job.layout,
        addresses: reply.shardAddresses,
        security: options.security ?? {},
        pass: passOf(reply),
      }),
      options.signal,
    );
    this.#session = session;
    this.#asking = AbortSignal.any([session.signal, this.#impatient]);
    options.observer?.registered?.(reply.workerId);
    this.#link.startHeartbeats(
      reply,
      () => this.#state,
      (error) => session.fail(error),
    );
    const engine =
      this.#engine?.jobId === job.jobId ? this.#engine : await this.#replaceEngine(job);
    if (job.frozen !== undefined && !engine.client.hasFrozen) {
      this.#setState("loading");
      await engine.loadFrozen(job.frozen, session);
    }
    engine.forgetVersion();
    this.#setState("idle");
  }

  async #replaceEngine(job: WorkerJob): Promise<LoadedEngine> {
    this.#setState("compiling");
    await this.#engine?.client.close();
    this.#engine = undefined;
    try {
      this.#engine = await LoadedEngine.create(job, this.#options);
      return this.#engine;
    } catch (error) {
      await this.#report(error, isFatal(error));
      throw error;
    }
  }

  /** @returns undefined when the worker was asked to stop */
  async #nextTask(): Promise<Task | undefined> {
    const session = this.#joined();
    this.#setState(session.heldLeases.length > 0 ? "sending" : "idle");
    await session.untilBufferFree();
    await this.#options.onPhase?.({ phase: "asking" });
    try {
      if (!this.#leaving.aborted) return await this.#link.nextTask(session, this.#asking);
    } catch (error) {
      if (!this.#leaving.aborted) throw error;
    }
    await session.untilSent();
    return undefined;
  }

  async #perform(task: TrainTask | EvaluateTask | GenerateTask): Promise<void> {
    const engine = this.#engineInUse();
    try {
      if (!engine.holds(task.version)) {
        this.#setState("loading");
        if (!(await engine.load(task.version, this.#joined()))) return;
      }
      if (task.kind === "train") await this.#train(task);
      else await this.#infer(task);
    } catch (error) {
      if (isEngineError(error)) await this.#report(error, isFatal(error), task.lease);
      throw error;
    }
  }

  /** Computes a group, and starts to send it. */
  async #train(task: TrainTask): Promise<void> {
    const session = this.#joined();
    const group = new GradientGroup(task, this.#engineInUse().client, session, this.#options);
    await this.#options.onPhase?.({ phase: "leased", step: task.step, group: task.group });
    this.#setState("computing");
    await group.compute();
    session.start(group.buffer, task.lease, async () => {
      await group.deliver(this.#link, () => {
        this.#numGroups += 1;
      });
      if (this.#state === "sending" && session.heldLeases.length === 1) this.#setState("idle");
    });
  }

  async #infer(task: EvaluateTask | GenerateTask): Promise<void> {
    const { client } = this.#engineInUse();
    const session = this.#joined();
    this.#setState("computing");
    if (task.kind === "generate") {
      const ids = await client.generate(task.prompt, task.maxNewTokens, task.endTokenIds);
      await this.#link.complete(session, task.lease, { kind: "tokens", ids: [...ids] });
      return;
    }
    const sums: EvaluatedBatch[] = [];
    for (const batch of task.batches) sums.push(await client.evaluate(batch));
    await this.#link.complete(session, task.lease, { kind: "losses", sums });
  }

  async #leave(reason: string): Promise<void> {
    this.#link.stopHeartbeats();
    const workerId = this.#session?.workerId;
    if (workerId !== undefined) await this.#link.leave(workerId, reason);
  }

  async #report(error: unknown, fatal: boolean, lease = 0): Promise<void> {
    await this.#link.report(error, { workerId: this.#session?.workerId ?? "", fatal, lease });
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

  #engineInUse(): LoadedEngine {
    if (this.#engine === undefined) throw new Error("the worker has no engine");
    return this.#engine;
  }
}
