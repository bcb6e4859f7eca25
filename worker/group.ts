import { rejectedTokensField } from "#lib/core/batch";
import type { LossSum } from "#lib/core/job";
import type { TrainTask } from "#lib/wire/control-messages";
import type { CoordinatorLink } from "./coordinator-link.js";
import type { EngineClient } from "./engine-client.js";
import { isLeaseLost } from "./failures.js";
import type { WorkerOptions } from "./options.js";
import type { Session } from "./session.js";

/** A gradient group while a worker has it: computed into a buffer, then sent while the next is computed. */
export class GradientGroup {
  /** Which gradient buffer is its own. */
  readonly buffer: number;
  readonly #task: TrainTask;
  readonly #client: EngineClient;
  readonly #session: Session;
  readonly #options: WorkerOptions;
  readonly #startedAt = performance.now();
  readonly #sums: LossSum[] = [];
  #computedMs = 0;

  constructor(task: TrainTask, client: EngineClient, session: Session, options: WorkerOptions) {
    this.buffer = session.freeBuffer();
    this.#task = task;
    this.#client = client;
    this.#session = session;
    this.#options = options;
  }

  /** Milliseconds that its micro-batches still take; undefined before the first one is computed. */
  get remainingMs(): number | undefined {
    const numDone = this.#sums.length;
    if (numDone === 0) return undefined;
    return (this.#computedMs / numDone) * (this.#task.batches.length - numDone);
  }

  /** @throws what the delivery of another group failed with */
  async compute(): Promise<void> {
    const { batches, gradScales, step, group, squares = false } = this.#task;
    for (const [index, fields] of batches.entries()) {
      const batch = { ...fields, coordinates: { step, group, index } };
      this.#session.throwIfFailed();
      if (this.#session.signal.aborted) throw this.#session.signal.reason;
      const startedAt = performance.now();
      const isFirst = this.#sums.length === 0;
      const isLast = this.#sums.length === batches.length - 1;
      const gradScale = gradScales[index] as number;
      const buffer = isLast ? this.buffer : undefined;
      this.#sums.push(await this.#client.accumulate(batch, gradScale, isFirst, buffer, squares));
      this.#computedMs += performance.now() - startedAt;
      this.#options.observer?.microBatchComputed?.({
        numTokens: ["tokens", rejectedTokensField.name].reduce(
          (sum, name) => sum + (batch.fields[name]?.length ?? 0),
          0,
        ),
        seconds: (performance.now() - startedAt) / 1000,
      });
    }
    await this.#options.onPhase?.({ phase: "computed", step, group });
  }

  /**
   * Pushes the gradient to all shards and reports the losses.
   *
   * @param onCompleted called once the coordinator has the report
   */
  async deliver(link: CoordinatorLink, onCompleted: () => void): Promise<void> {
    const { step, group, lease } = this.#task;
    const { transfers, signal } = this.#session;
    const { onPhase, observer } = this.#options;
    const gradients = this.#client.gradients(this.buffer);
    try {
      await transfers.push({ step, group, lease }, gradients, {
        signal,
        onRetry: (error) => observer?.retrying?.(error),
        onChunk:
          onPhase === undefined
            ? undefined
            : async (shard, sentBytes) =>
                onPhase({ phase: "pushing", step, group, shard, sentBytes }),
      });
    } catch (error) {
      if (!isLeaseLost(error)) throw error;
      observer?.retrying?.(error);
      return;
    }
    observer?.bytesTransferred?.("gradients", gradients.length);
    await onPhase?.({ phase: "pushed", step, group });
    const stale = await link.complete(this.#session, lease, { kind: "losses", sums: this.#sums });
    onCompleted();
    observer?.groupCompleted?.({
      step,
      group,
      seconds: (performance.now() - this.#startedAt) / 1000,
      stale,
    });
    await onPhase?.({ phase: "completed", step, group, stale });
  }
}
