import { createHash, type Hash } from "node:crypto";
import { LockstepError } from "#lib/core/errors/index";
import type { PushOutcome } from "#lib/wire/bulk-protocol";
import type { ArrivedGroup } from "#lib/wire/reducer-messages";

/** What a push consists of; a frame of the wire is one. */
export interface GradientChunk {
  readonly step: number;
  readonly group: number;
  readonly lease: number;
  /** Byte of the shard's range in wire form at which the payload begins. */
  readonly offset: number;
  /** CRC-32 of the payload, which has been compared with it. */
  readonly checksum: number;
  readonly payload: Uint8Array;
}

/** `stale`: the step is over. `duplicate`: another push of the group was complete first. */
type LostPush = Exclude<PushOutcome, "complete">;

interface ShardStateOptions {
  readonly shardIndex: number;
  /** Bytes of the shard's range in wire form. */
  readonly rangeBytes: number;
  readonly numGroups: number;
  /** Buffers of `rangeBytes` in use at a time, at least 2. */
  readonly maxAssemblies: number;
  /** Buffers made and touched at once, so that the first step does not pay for fresh pages. */
  readonly numWarmBuffers?: number;
  /** Called when a buffer became free for another push. */
  readonly onBufferFree?: () => void;
  readonly onArrived?: (arrived: ArrivedGroup) => void;
}

/**
 * Which bytes of which gradient group have arrived for the step in progress. Pure bookkeeping over
 * a bounded pool of buffers: knows no socket, thread or arithmetic.
 *
 * Each push is assembled in a buffer of its own, so two leases of a group never mix; the first whole one is
 * kept, and of the others only the digest is, to be compared. Whole groups leave in group order, whatever
 * order they came in.
 */
export class ShardState {
  readonly #options: ShardStateOptions;
  readonly #freeBuffers: Uint8Array[];
  readonly #inProgress = new Set<PushAssembly>();
  #numBuffersInUse = 0;
  /** The step in progress, or else the last one that was. */
  #step = -1;
  #isOpen = false;
  /** [group]: whole and waiting for its turn. */
  #waiting: (Uint8Array | undefined)[] = [];
  #isComplete: boolean[] = [];
  /** By lease: whose bytes are all here, kept or compared. */
  readonly #arrived = new Map<number, ArrivedGroup>();
  /** Groups before this one have been taken. */
  #nextGroup = 0;

  constructor(options: ShardStateOptions) {
    this.#options = options;
    this.#freeBuffers = Array.from({ length: options.numWarmBuffers ?? 0 }, () =>
      new Uint8Array(options.rangeBytes).fill(1),
    );
  }

  /** The step in progress; undefined between steps. */
  get openStepNumber(): number | undefined {
    return this.#isOpen ? this.#step : undefined;
  }

  /** The step in progress, or else the last one that was; undefined before the first. */
  get lastStep(): number | undefined {
    return this.#step < 0 ? undefined : this.#step;
  }

  /** What has come of the step in progress. */
  get arrived(): readonly ArrivedGroup[] {
    return this.#isOpen ? [...this.#arrived.values()] : [];
  }

  get numBuffersInUse(): number {
    return this.#numBuffersInUse;
  }

  get nextGroup(): number {
    return this.#nextGroup;
  }

  /** Whether every group of the step in progress has arrived. */
  get allArrived(): boolean {
    return this.#isOpen && this.#isComplete.every(Boolean);
  }

  /** From now on pushes of this step are taken. @throws E_SHARD_STATE */
  openStep(step: number): void {
    if (this.#isOpen || step <= this.#step) {
      throw new LockstepError("E_SHARD_STATE", {
        shardIndex: this.#options.shardIndex,
        call: `open step ${step}`,
        expected: this.#isOpen ? "no step in progress" : `a step after ${this.#step}`,
        got: this.#isOpen ? `step ${this.#step} in progress` : `step ${step}`,
      });
    }
    const { numGroups } = this.#options;
    this.#step = step;
    this.#isOpen = true;
    this.#waiting = Array.from({ length: numGroups }, () => undefined);
    this.#isComplete = Array.from({ length: numGroups }, () => false);
    this.#arrived.clear();
    this.#nextGroup = 0;
  }

  /** Forgets what has come of the step in progress: all groups are sent again, under other leases. */
  restartStep(): void {
    const step = this.#step;
    this.closeStep();
    this.#step = step - 1;
    this.openStep(step);
  }

  /** Ends the step in progress: pushes that still run are stale, groups not taken are forgotten. */
  closeStep(): void {
    this.#isOpen = false;
    for (const push of [...this.#inProgress]) push.lose("stale");
    for (const bytes of this.#waiting) if (bytes !== undefined) this.release(bytes);
    this.#waiting = [];
  }

  /** Steps are numbered from 0 again; pushes of before have leases that nobody holds any more. */
  startOver(): void {
    this.closeStep();
    this.#step = -1;
  }

  /** Whether pushes of a step are over. */
  isStale(step: number): boolean {
    return step < this.#step || (step === this.#step && !this.#isOpen);
  }

  /**
   * Starts the assembly of the push whose first chunk this is (`accept` still has to be called). That of a group
   * which is here already takes no buffer. One that its lease began before is over: a lease has one buffer at most.
   *
   * @param isVerified the digest is of the bytes themselves
   * @returns how the push is already lost, or "busy" when it has to wait for a buffer
   * @throws E_PUSH_GROUP, E_PUSH_STEP
   */
  begin(first: GradientChunk, isVerified = false): PushAssembly | LostPush | "busy" {
    const { step, group } = first;
    const { numGroups, maxAssemblies, rangeBytes } = this.#options;
    if (this.isStale(step)) return "stale";
    if (step > this.#step) {
      throw new LockstepError("E_PUSH_STEP", { step, group, openStep: this.#step });
    }
    if (!Number.isInteger(group) || group < 0 || group >= numGroups) {
      throw new LockstepError("E_PUSH_GROUP", { step, group, numGroups });
    }
    if (this.#arrived.has(first.lease)) return "duplicate";
    this.abandonPushes([first.lease]);
    if (this.#isComplete[group] === true) return this.#assemble(first, isVerified, undefined);
    // The last free buffer is for the group whose turn is next: the others wait for it, and it
    // would wait for them.
    const limit = group === this.#nextGroup ? maxAssemblies : maxAssemblies - 1;
    if (this.#numBuffersInUse >= limit) return "busy";
    this.#numBuffersInUse++;
    const buffer = this.#freeBuffers.pop() ?? new Uint8Array(rangeBytes);
    return this.#assemble(first, isVerified, buffer);
  }

  #assemble(
    first: GradientChunk,
    isVerified: boolean,
    buffer: Uint8Array | undefined,
  ): PushAssembly {
    const { group, lease } = first;
    const { rangeBytes } = this.#options;
    const push = new PushAssembly(
      { first, isVerified, rangeBytes, buffer },
      {
        release: (bytes) => this.release(bytes),
        ended: () => this.#inProgress.delete(push),
        complete: (bytes, digest) => {
          const isFirst = !this.#arrived.has(lease);
          const arrived = { step: first.step, group, lease, digest };
          this.#arrived.set(lease, arrived);
          if (bytes !== undefined) {
            this.#waiting[group] = bytes;
            this.#isComplete[group] = true;
            for (const other of this.#inProgress) {
              if (other.group === group) other.keepDigestOnly();
            }
          }
          if (isFirst) this.#options.onArrived?.(arrived);
        },
      },
    );
    this.#inProgress.add(push);
    return push;
  }

  /** Gives up what is on its way under these leases: their buffers are free. */
  abandonPushes(leases: readonly number[]): void {
    for (const push of [...this.#inProgress]) if (leases.includes(push.lease)) push.abandon();
  }

  /**
   * The bytes of the next group in order, if they are here. The caller gives them back with
   * `release` when it has added them.
   */
  takeNext(): Uint8Array | undefined {
    const bytes = this.#waiting[this.#nextGroup];
    if (bytes === undefined) return undefined;
    this.#waiting[this.#nextGroup++] = undefined;
    return bytes;
  }

  release(bytes: Uint8Array): void {
    this.#numBuffersInUse--;
    this.#freeBuffers.push(bytes);
    this.#options.onBufferFree?.();
  }
}

interface PushOwner {
  /** Takes a buffer back. */
  readonly release: (bytes: Uint8Array) => void;
  /** The push goes no further. */
  readonly ended: () => void;
  /** @param bytes undefined where they were only compared */
  readonly complete: (bytes: Uint8Array | undefined, digest: string) => void;
}

/** The bytes of one push so far. Chunks come in order, as a stream brings them. */
export class PushAssembly {
  readonly step: number;
  readonly group: number;
  readonly lease: number;
  readonly #owner: PushOwner;
  readonly #rangeBytes: number;
  readonly #isVerified: boolean;
  readonly #digest: Hash = createHash("sha256");
  /** Undefined where the bytes are only compared. */
  #buffer: Uint8Array | undefined;
  #receivedBytes = 0;
  #isOver = false;
  #outcome: PushOutcome | undefined;

  constructor(
    push: {
      readonly first: GradientChunk;
      readonly isVerified: boolean;
      readonly rangeBytes: number;
      readonly buffer: Uint8Array | undefined;
    },
    owner: PushOwner,
  ) {
    this.step = push.first.step;
    this.group = push.first.group;
    this.lease = push.first.lease;
    this.#isVerified = push.isVerified;
    this.#rangeBytes = push.rangeBytes;
    this.#buffer = push.buffer;
    this.#owner = owner;
  }

  /**
   * Copies a chunk to its place.
   *
   * @returns an outcome when the push was lost meanwhile: the sender may stop
   * @throws E_PUSH_CHUNK; the push is abandoned then. E_PUSH_INCOMPLETE after it was abandoned
   */
  accept(chunk: GradientChunk): PushOutcome | undefined {
    if (this.#outcome !== undefined) return this.#outcome;
    if (this.#isOver) throw this.#incomplete();
    const reason = this.#refusal(chunk, this.#rangeBytes);
    if (reason !== undefined) {
      const error = new LockstepError("E_PUSH_CHUNK", {
        step: this.step,
        group: this.group,
        offset: chunk.offset,
        payloadBytes: chunk.payload.length,
        expectedOffset: this.#receivedBytes,
        rangeBytes: this.#rangeBytes,
        reason,
      });
      this.abandon();
      throw error;
    }
    this.#buffer?.set(chunk.payload, chunk.offset);
    this.#addToDigest(chunk);
    this.#receivedBytes += chunk.payload.length;
    return undefined;
  }

  /** The sender said that this was all. @throws E_PUSH_INCOMPLETE; the push is abandoned then */
  finish(): PushOutcome {
    if (this.#outcome !== undefined) return this.#outcome;
    const buffer = this.#buffer;
    if (this.#isOver || this.#receivedBytes !== this.#rangeBytes) {
      this.abandon();
      throw this.#incomplete();
    }
    this.#buffer = undefined;
    this.#isOver = true;
    this.#outcome = buffer === undefined ? "duplicate" : "complete";
    this.#owner.ended();
    this.#owner.complete(buffer, this.#digest.digest("hex"));
    return this.#outcome;
  }

  /** Another push of the group was whole first. */
  keepDigestOnly(): void {
    const buffer = this.#buffer;
    this.#buffer = undefined;
    if (buffer !== undefined) this.#owner.release(buffer);
  }

  /** The sender went away or failed; does nothing to a push that has ended. */
  abandon(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#owner.ended();
    this.keepDigestOnly();
  }

  /** Called by the state when the push no longer matters. */
  lose(outcome: LostPush): void {
    this.#outcome = outcome;
    this.abandon();
  }

  /** Of unverified groups the chunks' checksums are enough: nobody means two of them to be equal. */
  #addToDigest({ offset, payload, checksum }: GradientChunk): void {
    if (this.#isVerified) this.#digest.update(payload);
    else this.#digest.update(`${offset} ${payload.length} ${checksum};`);
  }

  #incomplete(): LockstepError {
    return new LockstepError("E_PUSH_INCOMPLETE", {
      step: this.step,
      group: this.group,
      receivedBytes: this.#receivedBytes,
      rangeBytes: this.#rangeBytes,
    });
  }

  #refusal(chunk: GradientChunk, rangeBytes: number): string | undefined {
    const { step, group, lease, offset, payload } = chunk;
    if (step !== this.step || group !== this.group || lease !== this.lease) {
      return "belongs to another lease than the stream's first chunk";
    }
    if (offset < this.#receivedBytes) return "overlaps the chunks before it";
    if (offset > this.#receivedBytes) return "leaves a gap before it";
    if (payload.length === 0 && rangeBytes > 0) return "is empty";
    if (offset + payload.length > rangeBytes) return "reaches beyond the shard's range";
    return undefined;
  }
}
