import { awakeMs } from "#lib/core/awake-clock";
import {
  defaultSaveRetryMs,
  type FailedSave,
  failedSaveEvent,
  failedSaveLine,
  isWriteFailure,
  saveRepeatedly,
} from "#lib/checkpoint/repeated-save";
import { LockstepError } from "#lib/core/errors/index";
import type { TensorStates } from "#lib/core/shard-arrays";
import type { EventBus } from "#lib/wire/event-bus";
import type { HeldState } from "./held-state.js";
import type { CheckpointState, CoordinatorOptions, Snapshot } from "./options.js";

/** What a save that fails has left. */
interface Chance {
  /** `awakeMs()` from which on it is not tried again. */
  readonly giveUpAtMs: number;
  /** A newer one takes its place then. */
  readonly isReplaced: boolean;
  /** What becomes of the run until then; absent: it has ended. */
  readonly meanwhile?: string;
}

/** One last attempt. */
const newerOne = (): Chance => ({
  ...{ giveUpAtMs: awakeMs(), isReplaced: true },
  meanwhile: "a later one takes its place",
});
const endless: Chance = {
  ...{ giveUpAtMs: Number.POSITIVE_INFINITY, isReplaced: false },
  meanwhile: "training goes on",
};

type Checkpointing = NonNullable<CoordinatorOptions["checkpointing"]>;

/**
 * Writes what shards hold in the background, one save at a time. A copy that the file system refuses is tried again
 * while training goes on, until it is written or a newer one takes its place. The shards' own arrays are tried for as
 * long as nobody wants to change them; then another save is asked for. Weights that the run may end with have no such
 * substitute: training and all saves but one of better weights wait for them. At the end of the run, and while training
 * waits, a save is tried for a limited time.
 */
export class Checkpointer {
  readonly #options: Pick<Checkpointing, "save" | "retryMs">;
  readonly #bus: EventBus;
  readonly #onError: (error: unknown) => void;
  #last: Promise<void> = Promise.resolve();
  /** Memory of a copy that nobody needs any more. */
  #free: Snapshot | undefined;
  readonly #onGivenUp: () => void;
  #chance = endless;
  /** Whether the run may end with the weights of the last save. */
  #isKept = false;
  /** Ends a pause between two attempts. */
  #wake = (): void => {};
  #savedDirectory: string | undefined;

  constructor(options: {
    readonly checkpointing: Pick<Checkpointing, "save" | "retryMs">;
    readonly bus: EventBus;
    readonly onError: (error: unknown) => void;
    /** A save of the shards' own arrays failed, and they change. */
    readonly onGivenUp: () => void;
  }) {
    this.#options = options.checkpointing;
    this.#bus = options.bus;
    this.#onError = options.onError;
    this.#onGivenUp = options.onGivenUp;
  }

  /**
   * Waits for the save before; returns when this one has begun. A save that failed so far has one more attempt, and
   * then this one takes its place.
   *
   * @param isKept whether the run may end with these weights: they are the best so far
   * @param hold gets memory of an earlier copy
   * @param tensorStates copied
   */
  async begin(
    hold: (into: Snapshot | undefined) => Promise<HeldState>,
    state: CheckpointState,
    tensorStates: TensorStates,
    isKept: boolean,
  ): Promise<void> {
    const startedAt = performance.now();
    await this.#lastAttempts(this.#isKept && !isKept ? this.#whileTrainingWaits() : newerOne());
    this.#isKept = isKept;
    const waitedSeconds = (performance.now() - startedAt) / 1000;
    this.#chance = endless;
    const held = await hold(this.#free);
    this.#free = undefined;
    const kept = Object.entries(tensorStates).map(([name, values]) => [name, values.slice()]);
    held.onWanted(() => {
      this.#chance = isKept ? this.#whileTrainingWaits() : newerOne();
      this.#wake();
    });
    this.#last = this.#write(held, state, {
      tensorStates: Object.fromEntries(kept),
      waitedSeconds,
    }).catch(this.#onError);
  }

  /**
   * Resolves when nothing is being written. A save that fails is repeated for a limited time; when that is over, it
   * is an error.
   */
  async settled(): Promise<void> {
    await this.#lastAttempts(this.#limited());
  }

  #limited(): Chance {
    const { retryMs = defaultSaveRetryMs } = this.#options;
    return { giveUpAtMs: awakeMs() + retryMs, isReplaced: false };
  }

  #whileTrainingWaits(): Chance {
    const meanwhile = "training waits, for the best weights so far are in it";
    return { ...this.#limited(), meanwhile };
  }

  async #lastAttempts(chance: Chance): Promise<void> {
    this.#chance = chance;
    this.#wake();
    await this.#last;
  }

  async #write(
    held: HeldState,
    state: CheckpointState,
    beside: { readonly tensorStates: TensorStates; readonly waitedSeconds: number },
  ): Promise<void> {
    const startedAt = performance.now();
    const { step } = state;
    const { snapshot } = held;
    const release = (): void => held.release();
    // What was released may be changed, and then it cannot be tried again.
    const onRead = this.#isKept ? () => {} : release;
    const seconds = (): number => (performance.now() - startedAt) / 1000;
    try {
      const {
        directory,
        bytes,
        sharedBytes = 0,
        relayedBytes = 0,
      } = await saveRepeatedly(
        () => this.#options.save(snapshot, state, beside.tensorStates, onRead),
        {
          giveUpAtMs: () => {
            if (!held.retake()) this.#chance = newerOne();
            return this.#chance.giveUpAtMs;
          },
          pause: (ms) => this.#pause(ms),
          onFailure: (failure) => this.#tell(step, failure),
        },
      );
      this.#savedDirectory = directory;
      this.#bus.publish({
        ...{ type: "checkpoint.saved", step, directory, bytes },
        ...(sharedBytes === 0 ? {} : { sharedBytes }),
        ...(relayedBytes === 0 ? {} : { relayedBytes }),
        seconds: seconds(),
        waitSeconds: beside.waitedSeconds + held.waitedSeconds(),
      });
    } catch (error) {
      if (!isWriteFailure(error)) throw error;
      if (this.#chance.isReplaced) {
        if (!held.isCopy) this.#onGivenUp();
        return;
      }
      throw new LockstepError(
        "E_SAVE_FAILED",
        {
          ...{ what: "The checkpoint", step, seconds: Math.round(seconds()) },
          ...{ reason: error.message, kept: this.#savedDirectory },
        },
        { cause: error },
      );
    } finally {
      release();
      if (held.isCopy) this.#free = snapshot;
    }
  }

  #tell(step: number, failure: FailedSave): void {
    this.#bus.publish(failedSaveEvent(step, failure));
    const text = failedSaveLine(`checkpoint-${step}`, failure, this.#chance.meanwhile);
    if (text !== undefined) this.#bus.publish({ type: "note", text });
  }

  /** Until that long has passed, or there is a reason to try at once. */
  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
