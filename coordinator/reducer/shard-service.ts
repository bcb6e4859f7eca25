import { type ErrorCode, isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { ChosenOptimizer } from "#lib/optim/index";
import { type PullRequest, type PushOutcome, type PushReply } from "#lib/wire/bulk-protocol";
import type { BulkHandlers, PullSource, PushMeta } from "#lib/wire/bulk-server";
import type { Frame } from "#lib/wire/frame";
import { maxUnreadBytes } from "#lib/wire/limits";
import type { MemberPass } from "#lib/wire/member";
import type {
  ShardAnswer,
  ShardCommand,
  ShardNotice,
  ShardStats,
} from "#lib/wire/reducer-messages";
import { type RangeOf, rangeOf } from "#coordinator/shards";
import type { WireSecurity } from "#lib/wire/security";
import { PeerCopies } from "./peer-copies.js";
import { Fence, type RunLife } from "./fence.js";
import type { PushAssembly } from "./shard-state.js";
import { PublishedVersions } from "./published-versions.js";
import { ShardReducer } from "./shard-reducer.js";

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

interface ShardServiceOptions extends RangeOf {
  readonly optimizer: ChosenOptimizer;
  readonly gradientGroups: number;
  readonly life: RunLife;
  /** Of its calls to shards of the same range. */
  readonly security: WireSecurity;
  readonly notify: (notice: ShardNotice) => void;
  /** Called with payload bytes, as they come and go. */
  readonly onTransferred?: (direction: keyof ShardStats, payloadBytes: number) => void;
}

/**
 * A reducer shard as coordinator and workers see it, wherever it runs: the coordinator's commands, and pushes and
 * pulls of the workers that it told of.
 */
export class ShardService implements BulkHandlers {
  readonly reducer: ShardReducer;
  /** Of weights that stay as they are. */
  readonly frozen = new PublishedVersions();
  readonly #options: ShardServiceOptions;
  /** Pushes without a buffer; each is woken when one becomes free. */
  readonly #waiting: Set<() => void>;
  readonly #maxWaiting: number;
  readonly #fence: Fence;
  readonly #copies: PeerCopies;
  #stats: ShardStats = { receivedBytes: 0, sentBytes: 0 };

  private constructor(
    options: ShardServiceOptions,
    reducer: ShardReducer,
    waiting: Set<() => void>,
  ) {
    this.reducer = reducer;
    this.#options = options;
    this.#waiting = waiting;
    const heldBytes = Math.min(reducer.arithmetic.wireBytes, maxUnreadBytes);
    this.#maxWaiting = Math.min(maxWaitingPushes, Math.ceil(maxWaitingBytes / heldBytes));
    this.#fence = new Fence(options.life);
    this.#copies = new PeerCopies({ ...options, reducer, frozen: this.frozen });
  }

  /** @throws E_SHARD_TOO_LARGE, RangeError for a shard that there is none of */
  static async create(options: ShardServiceOptions): Promise<ShardService> {
    const { shardIndex, layout, optimizer, gradientGroups, notify } = options;
    const waiting = new Set<() => void>();
    const reducer = await ShardReducer.create({
      ...{ shardIndex, layout, optimizer, gradientGroups },
      range: rangeOf(options),
      onBufferFree: () => {
        for (const wake of waiting) wake();
      },
      onArrived: (arrived) => notify({ type: "arrived", arrived }),
    });
    return new ShardService(options, reducer, waiting);
  }

  /** What a coordinator that begins to listen has missed; never nothing. */
  get present(): readonly ShardNotice[] {
    return [
      { type: "pushesWaiting", numPushes: this.#waiting.size },
      ...this.reducer.state.arrived.map((arrived) => ({ type: "arrived", arrived }) as const),
    ];
  }

  /** A coordinator calls; one of a later life takes over. @throws E_STALE_COORDINATOR for one of an earlier life */
  open(life: RunLife): void {
    this.reducer.state.abandonPushes(this.#fence.open(life));
  }

  /** Pushes in progress end, and nothing is pulled any more. */
  close(): void {
    this.reducer.state.closeStep();
    this.reducer.published.clear();
    this.frozen.clear();
    for (const wake of this.#waiting) wake();
  }

  /** Carries out a command; see ShardReducer for what may be repeated. @throws E_SHARD_STATE */
  async handle(command: ShardCommand): Promise<ShardAnswer> {
    const { reducer } = this;
    switch (command.kind) {
      case "takeSum":
        return { kind: "sums", sums: await this.#copies.takeSum(command) };
      case "takeState":
        await this.#copies.takeState(command);
        break;
      case "digest":
        return { kind: "digest", sha256: await reducer.digest() };
      case "startOver":
        reducer.startOver();
        break;
      case "status":
        return { kind: "status", status: reducer.status };
      case "stats":
        return { kind: "stats", stats: this.#stats };
      case "publishInitial":
        reducer.publishInitial(command.version);
        break;
      case "fence":
        reducer.state.abandonPushes(this.#fence.change(command.change));
        break;
      case "openStep":
        if (reducer.openStep(command.step)) this.#fence.forgetLeases();
        break;
      case "restartStep":
        this.#fence.forgetLeases();
        reducer.restartStep(command.step);
        break;
      case "reduce":
        return { kind: "sums", sums: reducer.reduce(command.step) };
      case "penalise":
        return { kind: "penalised", sums: reducer.penalise(command.step, command.factor) };
      case "keepSquares":
        reducer.keepSquares(command.step, command.first);
        break;
      case "fisherSums":
        return { kind: "sums", sums: reducer.fisherSums() };
      case "finishFisher":
        reducer.finishFisher(command.scale);
        break;
      case "measure":
        return { kind: "windows", windows: reducer.measure(command.step, command.measurement) };
      case "apply":
        reducer.apply(command.step, command.update);
        break;
      case "discard":
        reducer.discard(command.step);
        break;
      default:
        throw new LockstepError("E_SHARD_STATE", {
          ...{ shardIndex: this.#options.shardIndex, call: command.kind },
          ...{ expected: "a command of a step", got: "one of the process" },
        });
    }
    return { kind: "done" };
  }

  /** @throws E_VERSION_NOT_PUBLISHED, E_STALE_RUN, E_UNKNOWN_WORKER */
  pullParameters({ space = "trained", version }: PullRequest, pass: MemberPass): PullSource {
    this.#fence.assertMember(pass);
    if (space !== "trained" && space !== "frozen") {
      return this.#copies.serve(space, version, pass);
    }
    const versions = space === "frozen" ? this.frozen : this.reducer.published;
    const published = versions.get(version);
    return {
      bytes: published.bytes,
      beforeChunk: (payloadBytes) => {
        versions.assertHeld(published);
        this.#transferred("sentBytes", payloadBytes);
      },
    };
  }

  #transferred(direction: keyof ShardStats, payloadBytes: number): void {
    this.#stats = { ...this.#stats, [direction]: this.#stats[direction] + payloadBytes };
    this.#options.onTransferred?.(direction, payloadBytes);
  }

  async pushGradients(meta: PushMeta, frames: AsyncIterable<Frame>): Promise<PushReply> {
    let receivedBytes = 0;
    let push: PushAssembly | undefined;
    const reply = (outcome: PushOutcome): PushReply => ({ outcome, receivedBytes });
    try {
      this.#fence.assertMember(meta.pass);
      for await (const frame of frames) {
        receivedBytes += frame.payload.length;
        this.#transferred("receivedBytes", frame.payload.length);
        if (push === undefined) {
          const begun = await this.#begin(frame, meta);
          if (typeof begun === "string") return reply(begun);
          push = begun;
        } else if (!this.reducer.state.isStale(frame.step)) {
          this.#fence.heldLease(meta.pass, frame);
        }
        const lost = push.accept(frame);
        if (lost !== undefined) return reply(lost);
      }
      // Not a frame came, or the only one was lost: the sender may send it again.
      if (push === undefined) {
        const { wireBytes: rangeBytes } = this.reducer.arithmetic;
        throw new LockstepError("E_PUSH_INCOMPLETE", {
          ...{ step: this.reducer.state.openStepNumber ?? 0, group: 0 },
          ...{ receivedBytes: 0, rangeBytes },
        });
      }
      if (!this.reducer.state.isStale(push.step)) this.#fence.heldLease(meta.pass, push);
      const outcome = push.finish();
      if (outcome === "complete") {
        // After the reply has been queued: the worker need not wait for the addition.
        setImmediate(() => this.reducer.addArrived());
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
    this.#options.notify({ type: "refused", workerId: pass.workerId, peer, code, reason });
  }

  /** Waits for a buffer where there is none. @throws E_SHARD_BUSY; E_LEASE_NOT_HELD and what the fence throws */
  async #begin(
    first: Frame,
    { pass, signal }: PushMeta,
  ): Promise<PushAssembly | "stale" | "duplicate"> {
    const deadline = performance.now() + bufferWaitMs;
    for (;;) {
      const { state } = this.reducer;
      if (state.isStale(first.step)) return "stale";
      const { isVerified } = this.#fence.heldLease(pass, first);
      const begun = state.begin(first, isVerified);
      if (begun !== "busy") return begun;
      const remainingMs = deadline - performance.now();
      if (remainingMs <= 0 || signal.aborted || this.#waiting.size >= this.#maxWaiting) {
        const { step, group } = first;
        const { maxAssemblies } = this.reducer;
        throw new LockstepError("E_SHARD_BUSY", { step, group, maxAssemblies });
      }
      await this.#nextFreeBuffer(remainingMs, signal);
    }
  }

  #tellWaiting(): void {
    this.#options.notify({ type: "pushesWaiting", numPushes: this.#waiting.size });
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
