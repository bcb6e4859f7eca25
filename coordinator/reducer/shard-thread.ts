import { workerData } from "node:worker_threads";
import { type ErrorCode, isLockstepError, LockstepError } from "#lib/core/errors/index";
import { serveThread } from "#lib/core/thread-client";
import { shardRanges } from "#lib/core/parameter-layout";
import { copyArrays } from "#lib/core/shard-arrays";
import {
  frozenVersion,
  maxBulkMessageBytes,
  type PullRequest,
  type PushOutcome,
  type PushReply,
} from "#lib/wire/bulk-protocol";
import { type PullSource, type PushMeta, registerBulkService } from "#lib/wire/bulk-server";
import type { Frame } from "#lib/wire/frame";
import { GrpcServer } from "#lib/wire/grpc-server";
import { maxUnreadBytes } from "#lib/wire/limits";
import { Fence } from "./fence.js";
import type { PushAssembly } from "./shard-state.js";
import { PublishedVersions } from "./published-versions.js";
import { ShardReducer } from "./shard-reducer.js";
import {
  receivedBytesIndex,
  type ShardAnswer,
  type ShardCommand,
  type ShardNotice,
  type ShardReady,
  type ShardThreadOptions,
  sentBytesIndex,
} from "./thread-protocol.js";

/**
 * How long a push waits for a buffer before its worker is told to ask again, which it does for as long as it
 * holds the lease; shorter than the time after which a sender takes a silent connection for dead.
 */
const bufferWaitMs = 20_000;
/** Pushes that may wait: each holds an open stream, and what of its bytes came unasked. */
const maxWaitingPushes = 256;
const maxWaitingBytes = 512 * 1024 * 1024;
/** Of pushes that belong to nobody here. */
const strangersCodes: ReadonlySet<string> = new Set([
  "E_STALE_RUN",
  "E_UNKNOWN_WORKER",
  "E_LEASE_NOT_HELD",
] satisfies ErrorCode[]);

/** Thread of one reducer shard: its arithmetic and its own gRPC server, on one event loop. */
class ShardThread {
  readonly #options: ShardThreadOptions;
  readonly #reducer: ShardReducer;
  readonly #frozen = new PublishedVersions();
  readonly #server: GrpcServer;
  readonly #notify: (notice: ShardNotice) => void;
  /** Pushes without a buffer; each is woken when one becomes free. */
  readonly #waiting: Set<() => void>;
  readonly #maxWaiting: number;
  readonly #fence: Fence;

  private constructor(
    options: ShardThreadOptions,
    reducer: ShardReducer,
    waiting: Set<() => void>,
    notify: (notice: ShardNotice) => void,
  ) {
    this.#options = options;
    this.#reducer = reducer;
    this.#waiting = waiting;
    this.#notify = notify;
    const heldBytes = Math.min(reducer.arithmetic.wireBytes, maxUnreadBytes);
    this.#maxWaiting = Math.min(maxWaitingPushes, Math.ceil(maxWaitingBytes / heldBytes));
    this.#fence = new Fence(options.life);
    this.#server = new GrpcServer({
      security: options.security,
      maxReceiveBytes: maxBulkMessageBytes,
      onHandled: (method, code, seconds) => notify({ type: "rpc", method, code, seconds }),
      onRefusedConnections: (reason, numConnections) =>
        notify({ type: "connectionsRefused", reason, numConnections }),
    });
    registerBulkService(this.#server, {
      pushGradients: async (meta, frames) => this.#pushGradients(meta, frames),
      pullParameters: (request, pass) => {
        this.#fence.assertMember(pass);
        return this.#published(request);
      },
    });
    if (options.frozen !== undefined) this.#frozen.add(frozenVersion, options.frozen);
  }

  #published({ space, version }: PullRequest): PullSource {
    const versions = space === "frozen" ? this.#frozen : this.#reducer.published;
    const published = versions.get(version);
    return {
      bytes: published.bytes,
      beforeChunk: (payloadBytes) => {
        versions.assertHeld(published);
        Atomics.add(this.#options.transferredBytes, sentBytesIndex, BigInt(payloadBytes));
      },
    };
  }

  static async start(
    options: ShardThreadOptions,
    notify: (notice: ShardNotice) => void,
  ): Promise<{ readonly thread: ShardThread; readonly ready: ShardReady }> {
    const { shardIndex, numShards, layout, optimizer, gradientGroups } = options;
    const { listenHost, listenPort = 0 } = options;
    const range = shardRanges(layout, numShards)[shardIndex];
    if (range === undefined) {
      throw new LockstepError("E_SHARD_STATE", {
        shardIndex,
        call: "start",
        expected: `an index below ${numShards}`,
        got: String(shardIndex),
      });
    }
    const waiting = new Set<() => void>();
    const reducer = await ShardReducer.create({
      shardIndex,
      layout,
      range,
      optimizer,
      gradientGroups,
      onBufferFree: () => {
        for (const wake of waiting) wake();
      },
      onArrived: (arrived) => notify({ type: "arrived", arrived }),
    });
    const thread = new ShardThread(options, reducer, waiting, notify);
    const port = await thread.#server.listen(listenHost, listenPort);
    const { masters, states } = reducer.arithmetic;
    return { thread, ready: { port, arrays: { masters, states } } };
  }

  async handle(command: ShardCommand): Promise<ShardAnswer> {
    const reducer = this.#reducer;
    switch (command.kind) {
      case "fence":
        reducer.state.abandonPushes(this.#fence.change(command.change));
        return undefined;
      case "startOver":
        reducer.startOver();
        return undefined;
      case "status":
        return reducer.status;
      case "openStep":
        if (reducer.openStep(command.step)) this.#fence.forgetLeases();
        return undefined;
      case "restartStep":
        this.#fence.forgetLeases();
        reducer.restartStep(command.step);
        return undefined;
      case "publishInitial":
        reducer.publishInitial(command.version);
        return undefined;
      case "reduce":
        return reducer.reduce(command.step);
      case "penalise":
        return reducer.penalise(command.step, command.factor);
      case "keepSquares":
        reducer.keepSquares(command.step, command.first);
        return undefined;
      case "fisherSums":
        return reducer.fisherSums();
      case "finishFisher":
        reducer.finishFisher(command.scale);
        return undefined;
      case "measure":
        return reducer.measure(command.step, command.measurement);
      case "apply":
        reducer.apply(command.step, command.update);
        return undefined;
      case "discard":
        reducer.discard(command.step);
        return undefined;
      case "snapshot":
        copyArrays(reducer.arithmetic, command.into);
        return undefined;
      case "close":
        await this.#server.close();
        return undefined;
    }
  }

  async #pushGradients(meta: PushMeta, frames: AsyncIterable<Frame>): Promise<PushReply> {
    let receivedBytes = 0;
    let push: PushAssembly | undefined;
    const reply = (outcome: PushOutcome): PushReply => ({ outcome, receivedBytes });
    try {
      this.#fence.assertMember(meta.pass);
      for await (const frame of frames) {
        receivedBytes += frame.payload.length;
        Atomics.add(
          this.#options.transferredBytes,
          receivedBytesIndex,
          BigInt(frame.payload.length),
        );
        if (push === undefined) {
          const begun = await this.#begin(frame, meta);
          if (typeof begun === "string") return reply(begun);
          push = begun;
        } else if (!this.#reducer.state.isStale(frame.step)) {
          this.#fence.heldLease(meta.pass, frame);
        }
        const lost = push.accept(frame);
        if (lost !== undefined) return reply(lost);
      }
      // Not a frame came, or the only one was lost: the sender may send it again.
      if (push === undefined) {
        const { wireBytes: rangeBytes } = this.#reducer.arithmetic;
        throw new LockstepError("E_PUSH_INCOMPLETE", {
          ...{ step: this.#reducer.state.openStepNumber ?? 0, group: 0 },
          ...{ receivedBytes: 0, rangeBytes },
        });
      }
      if (!this.#reducer.state.isStale(push.step)) this.#fence.heldLease(meta.pass, push);
      const outcome = push.finish();
      if (outcome === "complete") {
        // After the reply has been queued: the worker need not wait for the addition.
        setImmediate(() => this.#reducer.addArrived());
      }
      return reply(outcome);
    } catch (error) {
      this.#tellOfStranger(error, meta);
      throw error;
    } finally {
      push?.abandon();
    }
  }

  /** What was refused for whose it is, is the coordinator's to tell. */
  #tellOfStranger(error: unknown, { pass, peer }: PushMeta): void {
    if (!isLockstepError(error) || !strangersCodes.has(error.code)) return;
    const { code, message: reason } = error;
    this.#notify({ type: "refused", workerId: pass.workerId, peer, code, reason });
  }

  /** Waits for a buffer where there is none. @throws E_SHARD_BUSY; E_LEASE_NOT_HELD and what the fence throws */
  async #begin(
    first: Frame,
    { pass, signal }: PushMeta,
  ): Promise<PushAssembly | "stale" | "duplicate"> {
    const deadline = performance.now() + bufferWaitMs;
    for (;;) {
      const { state } = this.#reducer;
      if (state.isStale(first.step)) return "stale";
      const { isVerified } = this.#fence.heldLease(pass, first);
      const begun = state.begin(first, isVerified);
      if (begun !== "busy") return begun;
      const remainingMs = deadline - performance.now();
      if (remainingMs <= 0 || signal.aborted || this.#waiting.size >= this.#maxWaiting) {
        const { step, group } = first;
        const { maxAssemblies } = this.#reducer;
        throw new LockstepError("E_SHARD_BUSY", { step, group, maxAssemblies });
      }
      await this.#nextFreeBuffer(remainingMs, signal);
    }
  }

  #tellWaiting(): void {
    this.#notify({ type: "pushesWaiting", numPushes: this.#waiting.size });
  }

  async #nextFreeBuffer(timeoutMs: number, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", wake);
        this.#waiting.delete(wake);
        this.#tellWaiting();
        resolve();
      };
      const timer = setTimeout(wake, timeoutMs);
      signal.addEventListener("abort", wake);
      this.#waiting.add(wake);
      this.#tellWaiting();
    });
  }
}

await serveThread<ShardReady, ShardCommand, ShardAnswer, ShardNotice>(async (notify) => {
  const { thread, ready } = await ShardThread.start(workerData as ShardThreadOptions, notify);
  return {
    ready,
    handle: async (command) => thread.handle(command),
    isLast: ({ kind }) => kind === "close",
  };
});
