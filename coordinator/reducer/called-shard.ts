import { LockstepError } from "#lib/core/errors/index";
import type { Measurement, SumWindow, Update } from "#lib/optim/index";
import type {
  ArrivedGroup,
  FenceChange,
  PenalisedSums,
  RefusedPush,
  ShardAnswer,
  ShardCommand,
  ShardLimitNotice,
  ShardNotice,
  ShardPeer,
  ShardStatus,
} from "#lib/wire/reducer-messages";

type AnswerOf<Kind extends ShardAnswer["kind"]> = Extract<ShardAnswer, { readonly kind: Kind }>;

/** A shard whose calls are commands, which go to a thread or to another process. */
export abstract class CalledShard {
  readonly shardIndex: number;

  constructor(shardIndex: number) {
    this.shardIndex = shardIndex;
  }

  protected abstract call(command: ShardCommand): Promise<ShardAnswer>;
  protected abstract onNotice(callback: (notice: ShardNotice) => void): void;

  async status(): Promise<ShardStatus> {
    return (await this.ask({ kind: "status" }, "status")).status;
  }

  async publishInitial(version: number): Promise<void> {
    await this.ask({ kind: "publishInitial", version }, "done");
  }

  async changeFence(change: FenceChange): Promise<void> {
    await this.ask({ kind: "fence", change }, "done");
  }

  /** @throws E_SHARD_STATE */
  async openStep(step: number): Promise<void> {
    await this.ask({ kind: "openStep", step }, "done");
  }

  /** @throws E_SHARD_STATE */
  async restartStep(step: number): Promise<void> {
    await this.ask({ kind: "restartStep", step }, "done");
  }

  /**
   * @returns float64 sum of squares of each 65,536-element block of the range, in block order
   * @throws E_SHARD_STATE when a group is missing
   */
  async reduce(step: number): Promise<{ readonly blockSumsOfSquares: Float64Array }> {
    const { sums } = await this.ask({ kind: "reduce", step }, "sums");
    return { blockSumsOfSquares: sums };
  }

  /** As `reduce`, of the sum that a peer has. @throws E_SHARD_STATE, and what the transfer fails with */
  async takeSum(
    step: number,
    peer: ShardPeer,
  ): Promise<{ readonly blockSumsOfSquares: Float64Array }> {
    const { sums } = await this.ask({ kind: "takeSum", step, peer }, "sums");
    return { blockSumsOfSquares: sums };
  }

  /** Becomes what a peer is between two steps. @throws what the transfer fails with */
  async takeState(status: ShardStatus, peer: ShardPeer): Promise<void> {
    await this.ask({ kind: "takeState", status, peer }, "done");
  }

  /** @returns SHA-256 of all that it keeps */
  async digest(): Promise<string> {
    return (await this.ask({ kind: "digest" }, "digest")).sha256;
  }

  /** @throws E_SHARD_STATE before `reduce` */
  async penalise(step: number, factor: number): Promise<PenalisedSums> {
    return (await this.ask({ kind: "penalise", step, factor }, "penalised")).sums;
  }

  /** @throws E_SHARD_STATE before `reduce` */
  async keepSquares(step: number, first: boolean): Promise<void> {
    await this.ask({ kind: "keepSquares", step, first }, "done");
  }

  async fisherSums(): Promise<Float64Array> {
    return (await this.ask({ kind: "fisherSums" }, "sums")).sums;
  }

  /** @throws E_SHARD_STATE during a step */
  async finishFisher(scale: number): Promise<void> {
    await this.ask({ kind: "finishFisher", scale }, "done");
  }

  /** @throws E_SHARD_STATE before `reduce` */
  async measure(step: number, measurement: Measurement): Promise<readonly SumWindow[]> {
    return (await this.ask({ kind: "measure", step, measurement }, "windows")).windows;
  }

  /** @throws E_SHARD_STATE */
  async apply(step: number, update: Update): Promise<void> {
    await this.ask({ kind: "apply", step, update }, "done");
  }

  /** @throws E_SHARD_STATE */
  async discard(step: number): Promise<void> {
    await this.ask({ kind: "discard", step }, "done");
  }

  onArrived(callback: (arrived: ArrivedGroup) => void): void {
    this.onNotice((notice) => {
      if (notice.type === "arrived") callback(notice.arrived);
    });
  }

  onRefused(callback: (refused: RefusedPush) => void): void {
    this.onNotice((notice) => {
      if (notice.type === "refused") callback(notice);
    });
  }

  onRpc(callback: (method: string, code: string, seconds: number) => void): void {
    this.onNotice((notice) => {
      if (notice.type === "rpc") callback(notice.method, notice.code, notice.seconds);
    });
  }

  onLimit(callback: (notice: ShardLimitNotice) => void): void {
    this.onNotice((notice) => {
      if (notice.type === "connectionsRefused" || notice.type === "pushesWaiting") callback(notice);
    });
  }

  /** @throws E_SHARD_FAILED for an answer of another kind */
  protected async ask<Kind extends ShardAnswer["kind"]>(
    command: ShardCommand,
    kind: Kind,
  ): Promise<AnswerOf<Kind>> {
    const answer = await this.call(command);
    if (answer.kind === kind) return answer as AnswerOf<Kind>;
    const reason = `${command.kind} was answered with ${answer.kind}`;
    throw new LockstepError("E_SHARD_FAILED", { shardIndex: this.shardIndex, reason });
  }
}
