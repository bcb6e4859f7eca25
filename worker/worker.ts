import { setTimeout as delay } from "node:timers/promises";
import type { WorkerState } from "#lib/core/events";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import type { EvaluatedBatch, WorkerJob } from "#lib/core/job";
import type { EvaluateTask, GenerateTask, Task, TrainTask } from "#lib/wire/control-messages";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { Drain } from "./drain.js";
import { CoordinatorLink, defaultReconnectTimeoutMs, passOf } from "./coordinator-link.js";
import {
  isEngineError,
  isFatal,
  isMembershipOver,
  isShardGone,
  isTransferFailure,
} from "./failures.js";
import { GradientGroup } from "./group.js";
import { LoadedEngine } from "./loaded-engine.js";
import type { WorkerOptions, WorkerOutcome } from "./options.js";
import { firstBackoffMs, soonAfter } from "./reachable.js";
import { AwaitedReturn } from "./return.js";
import { Session } from "./session.js";
import { isShardError, shardAddresses, untilShardsReachable } from "./shard-addresses.js";
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

/** Until a coordinator that was stopped has closed its ports. */
const awayMs = 1_000;

class WorkerLoop {
  readonly #options: WorkerOptions;
  readonly #link: CoordinatorLink;
  #session: Session | undefined;
  #engine: LoadedEngine | undefined;
  #state: WorkerState = "compiling";
  #numGroups = 0;
  /** Of the job. */
  #frozen: ParameterLayout | undefined;
  readonly #return: AwaitedReturn;
  readonly #drain: Drain;
  /** Aborted when the worker is to leave at once. */
  readonly #stop: AbortSignal;
  /** Aborted when the worker is to leave, at once or after its group. */
  readonly #leaving: AbortSignal;
  /** Aborted when no answer is waited for any more: a task that is on its way is still done. */
  readonly #impatient: AbortSignal;
  /** That, or the end of the session. */
  #asking: AbortSignal;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#drain = new Drain(options.drain, options.drainGraceMs, (reason) =>
      options.observer?.told?.(`what is in work is given back: ${reason}`),
    );
    this.#stop = anyOf(options.signal, this.#drain.givenBack);
    this.#leaving = anyOf(this.#stop, options.drain);
    this.#impatient = soonAfter(options.drain);
    this.#asking = this.#impatient;
    this.#link = new CoordinatorLink(options);
    this.#return = new AwaitedReturn(options.returnTimeoutMs ?? 0);
  }

  async run(): Promise<WorkerOutcome> {
    const ended = (outcome: WorkerOutcome["outcome"]): WorkerOutcome => ({
      outcome,
      numGroups: this.#numGroups,
    });
    while (!this.#leaving.aborted) {
      try {
        await this.#join();
        const last = await this.#work();
        await this.#leave(last?.reason ?? "it was asked to stop");
        if (last === undefined) continue;
        if (!last.interrupted) return ended("finished");
        if (!(await this.#goesOnWaiting())) return ended("interrupted");
      } catch (thrown) {
        // What a delivery failed with is the cause of what its end made fail.
        const error = this.#session?.failure ?? thrown;
        await this.#session?.close();
        if (remoteErrorCode(error) === "E_RUN_OVER") return ended("finished");
        if (remoteErrorCode(error) === "E_RUN_STOPPED") {
          if (!(await this.#goesOnWaiting())) return ended("interrupted");
          continue;
        }
        const isOtherRun = remoteErrorCode(error) === "E_OTHER_RUN";
        if (this.#return.endedBy(error, isOtherRun)) return ended("interrupted");
        if (this.#leaving.aborted) {
          await this.#leave("it was asked to stop");
        } else if (isMembershipOver(error)) {
          this.#options.observer?.retrying?.(error);
          // One that another took the run from is about to end.
          const isReplaced = remoteErrorCode(error) === "E_STALE_COORDINATOR";
          if (isReplaced) await delay(firstBackoffMs);
        } else if (isOtherRun) {
          this.#options.observer?.retrying?.(error);
          await delay(awayMs, undefined, { signal: this.#leaving }).catch(() => {});
        } else if (isShardGone(error)) {
          // Nothing of it is the worker's failure.
          this.#options.observer?.retrying?.(error);
          await delay(firstBackoffMs, undefined, { signal: this.#leaving }).catch(() => {});
        } else if (isTransferFailure(error)) {
          this.#options.observer?.retrying?.(error);
          await this.#report(error, false);
          await delay(firstBackoffMs);
        } else throw error;
      }
    }
    return ended("left");
  }

  /** @returns what the coordinator said at the end; undefined when the worker was asked to stop */
  async #work(): Promise<Extract<Task, { readonly kind: "finished" }> | undefined> {
    while (this.#session !== undefined) {
      const task = await this.#nextTask();
      if (task === undefined || task.kind === "finished") return task;
      if (task.kind === "wait") continue;
      this.#return.resumed();
      await this.#perform(task);
    }
    return undefined;
  }

  /** The run was stopped. @returns false where its return is not waited for, or not any more */
  async #goesOnWaiting(): Promise<boolean> {
    await this.#session?.close();
    this.#session = undefined;
    const isNews = this.#return.leftMs === undefined;
    this.#return.interrupted();
    const leftMs = this.#return.leftMs ?? 0;
    if (leftMs === 0) return false;
    this.#setState("idle");
    if (isNews) this.#options.observer?.awaitingReturn?.(leftMs);
    // The coordinator that said goodbye needs a moment to be gone.
    await delay(awayMs, undefined, { signal: this.#leaving }).catch(() => {});
    return true;
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
    const reply = await this.#link.register(this.#leaving, this.#return.leftMs);
    if (reply === undefined) return;
    const job = JSON.parse(reply.jobJson) as WorkerJob;
    const addresses = await this.#orReport(reply.workerId, async () =>
      shardAddresses(reply.shardAddresses, this.#link.address),
    );
    const session = new Session(
      reply.workerId,
      new ShardTransfers({
        layout: job.layout,
        addresses,
        security: options.security ?? {},
        pass: passOf(reply),
      }),
      this.#stop,
    );
    this.#session = session;
    this.#asking = AbortSignal.any([session.signal, this.#impatient]);
    options.observer?.registered?.(reply.workerId, this.#link.address);
    this.#link.startHeartbeats(
      reply,
      () => this.#state,
      (error) => session.fail(error),
    );
    await this.#reachShards(session);
    const engine =
      this.#engine?.jobId === job.jobId ? this.#engine : await this.#replaceEngine(job);
    this.#frozen = job.frozen;
    await this.#loadFrozen(engine, session);
    engine.forgetVersion();
    await this.#loadAhead(engine, session, job.fingerprints === true);
    this.#setState("idle");
  }

  async #loadFrozen(engine: LoadedEngine, session: Session): Promise<void> {
    if (this.#frozen === undefined || engine.client.hasFrozen) return;
    this.#setState("loading");
    await engine.loadFrozen(this.#frozen, session);
  }

  /** Gets the parameters of now while others compute: nobody waits for a group of a worker that has just joined. */
  async #loadAhead(engine: LoadedEngine, session: Session, isDigested: boolean): Promise<void> {
    if (this.#leaving.aborted) return;
    this.#setState("loading");
    const version = await this.#link.assertKnown(session.workerId, this.#state, session.signal);
    await engine.load(version, session, isDigested);
  }

  async #reachShards(session: Session): Promise<void> {
    const { workerId, transfers } = session;
    const { address: coordinator } = this.#link;
    const { reconnectTimeoutMs } = this.#options;
    const timeoutMs = reconnectTimeoutMs ?? defaultReconnectTimeoutMs;
    const askCoordinator = async (): Promise<void> => {
      await this.#link.assertKnown(workerId, this.#state, this.#leaving);
    };
    const signal = AbortSignal.any([session.signal, this.#leaving]);
    const options = { coordinator, askCoordinator, timeoutMs, signal };
    await this.#orReport(workerId, () => untilShardsReachable(transfers, options));
    session.throwIfFailed();
  }

  /** Tells the coordinator why this worker cannot take part. */
  async #orReport<T>(workerId: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      if (isShardError(error)) await this.#link.report(error, { workerId, fatal: false });
      throw error;
    }
  }

  async #replaceEngine(job: WorkerJob): Promise<LoadedEngine> {
    this.#setState("compiling");
    await this.#engine?.client.close();
    this.#engine = undefined;
    try {
      const creating = LoadedEngine.create(job, this.#options);
      // One that is made too late is of no use.
      const made = await this.#orStopped(creating, async () => (await creating).client.close());
      this.#engine = made;
      return made;
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
      await this.#loadFrozen(engine, this.#joined());
      const isDigested = task.kind === "train" && task.isFingerprinted === true;
      if (!engine.holds(task.version, isDigested)) {
        this.#setState("loading");
        if (!(await engine.load(task.version, this.#joined(), isDigested))) return;
      }
      await this.#orStopped(task.kind === "train" ? this.#train(task) : this.#infer(task));
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
    this.#drain.works(() => group.remainingMs);
    try {
      await group.compute();
    } finally {
      this.#drain.rests();
    }
    if (task.isFingerprinted === true && !(await this.#isIntact(task))) return;
    session.start(group.buffer, task.lease, async () => {
      await group.deliver(this.#link, () => {
        this.#numGroups += 1;
      });
      if (this.#state === "sending" && session.heldLeases.length === 1) this.#setState("idle");
    });
  }

  /** Whether the engine computed with the weights that it was given; if not, it gets them anew. */
  async #isIntact({ lease, version }: TrainTask): Promise<boolean> {
    const engine = this.#engineInUse();
    const fingerprints = await engine.client.fingerprint();
    const report = { lease, version, fingerprints };
    const isIntact = await this.#link.checkWeights(this.#joined(), report);
    if (!isIntact) engine.forgetWeights();
    return isIntact;
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
    for (const batch of task.batches) {
      if (session.signal.aborted) throw session.signal.reason;
      sums.push(await client.evaluate(batch));
    }
    await this.#link.complete(session, task.lease, { kind: "losses", sums });
  }

  /**
   * What takes long and cannot be broken off is left to itself once the worker is to leave at once: the coordinator
   * need not wait for it.
   */
  async #orStopped<T>(working: Promise<T>, late?: () => Promise<void>): Promise<T> {
    const stop = this.#stop;
    return new Promise<T>((resolve, reject) => {
      const leave = (): void => {
        working.then(late).catch(() => {});
        reject(stop.reason);
      };
      if (stop.aborted) leave();
      stop.addEventListener("abort", leave, { once: true });
      working.then(resolve, reject).finally(() => stop.removeEventListener("abort", leave));
    });
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

const anyOf = (...signals: readonly (AbortSignal | undefined)[]): AbortSignal =>
  AbortSignal.any(signals.filter((signal) => signal !== undefined));
