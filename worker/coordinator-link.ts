import { randomUUID } from "node:crypto";
import os from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError } from "#lib/core/errors/index";
import type { WorkerState } from "#lib/core/events";
import { hasBf16Products, processorKind, readProcessor } from "#lib/core/processor";
import { ControlClient } from "#lib/wire/control-client";
import {
  type CheckWeightsRequest,
  protocolVersion,
  type RegisterReply,
  type Task,
  type TaskResult,
} from "#lib/wire/control-messages";
import type { MemberPass } from "#lib/wire/member";
import { createProcessorReader } from "./device.js";
import { EngineFailure } from "./engine-client.js";
import { isMembershipOver, isRunOver } from "./failures.js";
import type { DeviceReading, WorkerOptions } from "./options.js";
import { isUnreachable, untilReachable } from "./reachable.js";
import type { Session } from "./session.js";

/** How long one NextTask call waits for work. */
const longPollMs = 20_000;
export const defaultReconnectTimeoutMs = 60_000;

/** What the calls of a registration show. */
export const passOf = (reply: RegisterReply): MemberPass => ({
  runId: reply.runId,
  epoch: reply.epoch,
  workerId: reply.workerId,
  secret: reply.memberSecret,
});

/** A worker's calls to its coordinator, which may be away for a while. */
export class CoordinatorLink {
  readonly #options: WorkerOptions;
  /** The coordinator and those that may take its place. */
  readonly #controls: readonly [ControlClient, ...ControlClient[]];
  /** Which of them is called. */
  #called = 0;
  #pass: MemberPass | undefined;
  #isSearching = false;
  readonly #readDevice: () => DeviceReading;
  readonly #startedAt = performance.now();
  /** Of this life of the process. */
  readonly #incarnation: string;
  /** Ends the heartbeats of the registration before, and those that nobody has answered. */
  #endHeartbeats = (): void => {};

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#incarnation = options.incarnation ?? randomUUID();
    const open = (address: string): ControlClient =>
      new ControlClient({
        address,
        security: options.security ?? {},
        onTlsNews: (line) => options.observer?.told?.(line),
      });
    this.#controls = [
      open(options.coordinatorAddress),
      ...(options.standbyAddresses ?? []).map(open),
    ];
    this.#readDevice = options.readDevice ?? createProcessorReader();
  }

  get #control(): ControlClient {
    return this.#controls[this.#called] ?? this.#controls[0];
  }

  /** host:port of the coordinator that is called. */
  get address(): string {
    return this.#control.address;
  }

  /**
   * Knocks until the job is known.
   *
   * @param timeoutMs how long nobody may answer, where it is not `reconnectTimeoutMs`
   * @returns undefined when the worker was asked to stop before that
   */
  async register(stop: AbortSignal, timeoutMs?: number): Promise<RegisterReply | undefined> {
    const { name, deviceKind, deviceType, advice } = this.#options;
    const request = {
      protocolVersion,
      name: name ?? "",
      host: os.hostname(),
      pid: process.pid,
      deviceKind: deviceKind ?? processorKind(readProcessor()),
      deviceType: deviceType ?? "cpu",
      advisesBf16: advice?.bf16 ?? hasBf16Products(readProcessor()),
      advisesFp16: advice?.fp16 ?? false,
      bf16Slowdown: advice?.bf16Slowdown ?? 0,
      fp16Slowdown: advice?.fp16Slowdown ?? 0,
      incarnation: this.#incarnation,
    };
    let toldReason = "";
    for (;;) {
      const register = async (): Promise<RegisterReply> => this.#control.register(request);
      const reply = await this.#untilReachable(register, stop, timeoutMs);
      if (reply.retryAfterMs === 0) {
        this.#pass = passOf(reply);
        this.#control.usePass(this.#pass);
        return reply;
      }
      if (reply.waitReason !== "" && reply.waitReason !== toldReason) {
        toldReason = reply.waitReason;
        this.#options.observer?.told?.(`waits at ${this.address}: ${toldReason}`);
      }
      await delay(reply.retryAfterMs, undefined, { signal: stop }).catch(() => {});
      if (stop.aborted) return undefined;
    }
  }

  /**
   * @param state what the worker is at, read at each heartbeat
   * @param onOver called when the coordinator does not know this registration, or the run is over
   */
  startHeartbeats(
    reply: RegisterReply,
    state: () => WorkerState,
    onOver: (error: unknown) => void,
  ): void {
    const end = new AbortController();
    const { workerId, heartbeatIntervalMs } = reply;
    const search = (): void => void this.#findSuccessor(workerId, state(), end.signal, onOver);
    let numUnanswered = 0;
    const beat = (): void => {
      // The next one is due: another coordinator may have the run long before the call's deadline.
      if (numUnanswered > 0) search();
      numUnanswered += 1;
      this.#beat(workerId, state(), { signal: end.signal })
        .catch((error: unknown) => {
          if (end.signal.aborted) return;
          if (isRunOver(error)) {
            clearInterval(timer);
            return onOver(error);
          }
          this.#options.observer?.retrying?.(error);
          // Transfers to shards of a coordinator that is gone would be repeated for long.
          if (isMembershipOver(error)) onOver(error);
          else if (isUnreachable(error)) search();
        })
        .finally(() => {
          numUnanswered -= 1;
        });
    };
    beat();
    const timer = setInterval(beat, heartbeatIntervalMs);
    this.#endHeartbeats = () => {
      clearInterval(timer);
      end.abort();
    };
  }

  /**
   * @returns the version of the parameters that the next tasks are of
   * @throws what the coordinator answers a worker that it does not know; E_COORDINATOR_UNREACHABLE
   */
  async assertKnown(workerId: string, state: WorkerState, signal: AbortSignal): Promise<number> {
    return this.#untilReachable(() => this.#beat(workerId, state, { signal }), signal);
  }

  stopHeartbeats(): void {
    this.#endHeartbeats();
  }

  /** Asks for work, naming the leases that are kept. @throws what a delivery failed with */
  async nextTask(session: Session, signal: AbortSignal): Promise<Task> {
    const { workerId } = session;
    return this.#untilReachable(async () => {
      session.throwIfFailed();
      const { heldLeases } = session;
      return this.#control.nextTask({ workerId, maxWaitMs: longPollMs, heldLeases }, signal);
    }, signal);
  }

  /** @returns whether the lease had gone to another worker */
  async complete(
    { workerId, signal }: Session,
    lease: number,
    result: TaskResult,
  ): Promise<boolean> {
    const { stale } = await this.#untilReachable(
      async () => this.#control.completeTask({ workerId, lease, result }, signal),
      signal,
    );
    return stale;
  }

  /** @returns whether the coordinator has nothing against what is computed with these weights */
  async checkWeights(
    { workerId, signal }: Session,
    report: Omit<CheckWeightsRequest, "workerId">,
  ): Promise<boolean> {
    const { isIntact } = await this.#untilReachable(
      async () => this.#control.checkWeights({ workerId, ...report }, signal),
      signal,
    );
    return isIntact;
  }

  /** Tells what went wrong, as well as it can. */
  async report(
    error: unknown,
    { workerId = "", fatal, lease = 0 }: { workerId?: string; fatal: boolean; lease?: number },
  ): Promise<void> {
    const failure = error instanceof EngineFailure ? error.engineError : undefined;
    const code = failure?.code || (isLockstepError(error) ? error.code : "");
    const message = failure?.message ?? (error instanceof Error ? error.message : String(error));
    await this.#control.reportFailure({ workerId, lease, code, message, fatal }).catch(() => {});
  }

  async leave(workerId: string, reason: string): Promise<void> {
    // The coordinator may be gone already, which is as good.
    await this.#control.leave({ workerId, reason }).catch(() => {});
  }

  close(): void {
    for (const control of this.#controls) control.close();
  }

  /** Where the coordinator is silent another one may have the run, which does not know this registration. */
  async #findSuccessor(
    workerId: string,
    state: WorkerState,
    signal: AbortSignal,
    onOver: (error: unknown) => void,
  ): Promise<void> {
    if (this.#isSearching) return;
    this.#isSearching = true;
    const called = this.#called;
    const ask = async (control: ControlClient, index: number): Promise<void> => {
      if (index === called) return;
      if (this.#pass !== undefined) control.usePass(this.#pass);
      try {
        await this.#beat(workerId, state, { control, signal });
      } catch (error) {
        if (signal.aborted || this.#called !== called || !isMembershipOver(error)) return;
        this.#called = index;
        onOver(error);
      }
    };
    await Promise.all(this.#controls.map(ask));
    this.#isSearching = false;
  }

  async #beat(
    workerId: string,
    state: WorkerState,
    {
      control = this.#control,
      signal,
    }: { readonly control?: ControlClient; readonly signal: AbortSignal },
  ): Promise<number> {
    const deviceSeconds = (performance.now() - this.#startedAt) / 1000;
    const beat = { workerId, state, ...this.#readDevice(), deviceSeconds };
    return (await control.heartbeat(beat, signal)).version;
  }

  async #untilReachable<T>(
    call: () => Promise<T>,
    signal: AbortSignal,
    timeoutMs = this.#options.reconnectTimeoutMs ?? defaultReconnectTimeoutMs,
  ): Promise<T> {
    const address = this.#controls.map((control) => control.address).join(",");
    const onRetry = (error: unknown): void => {
      this.#options.observer?.retrying?.(error);
      this.#called = (this.#called + 1) % this.#controls.length;
      if (this.#pass !== undefined) this.#control.usePass(this.#pass);
    };
    return untilReachable(call, { address, timeoutMs, signal, onRetry });
  }
}
