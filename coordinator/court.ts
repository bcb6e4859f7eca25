import type { EventBus } from "#lib/wire/event-bus";
import type { Jury } from "./compared-work.js";
import type { VerifiedShare } from "./verified-share.js";

interface CourtOptions {
  readonly bus: EventBus;
  readonly verified: VerifiedShare;
  /** Members of now that ask for work. */
  readonly present: () => readonly string[];
  /** Keeps a worker out for good. */
  readonly ban: (workerId: string, reason: string) => void;
  /** Bytes that a worker computed are with a shard. */
  readonly worked: (workerId: string) => void;
  /** A whole result of a worker is here. */
  readonly brought: (workerId: string) => void;
  /** Something that a worker said it had sent did not come. */
  readonly brokePromise: (workerId: string, reason: string) => void;
}

/** What becomes of workers whose results differ from those of others, for all pieces of work of a run. */
export class Court {
  readonly #options: CourtOptions;
  #isTold = false;

  constructor(options: CourtOptions) {
    this.#options = options;
  }

  /** @param step steps completed */
  juryOf(kind: "group" | "evaluation" | "measurement", step: number): Jury {
    const { bus, verified, present, worked, ban, brokePromise } = this.#options;
    const isEvaluation = kind === "evaluation";
    const what = (item: number): string =>
      isEvaluation
        ? `batch ${item} of the evaluation after step ${step}`
        : kind === "measurement"
          ? `group ${item} of round ${step + 1} of the Fisher information`
          : `group ${item} of step ${step + 1}`;
    return {
      present,
      isVerified: (item) => verified.has(kind, step, item),
      onDivided: (group, workerIds) =>
        bus.publish({
          type: "group.diverged",
          ...{ step, group, workerIds },
          ...(isEvaluation ? { isEvaluation } : {}),
        }),
      onDissent: (item, worker) =>
        ban(worker, `it computed other bits of ${what(item)} than others agree on`),
      onArrived: worked,
      onResult: (worker) => this.brought(worker),
      onBroken: brokePromise,
    };
  }

  brought(workerId: string): void {
    this.#options.brought(workerId);
  }

  /** Tells once that what is verified waits for a second worker. */
  membersChanged(): void {
    const { verified, present } = this.#options;
    const isAlone = verified.isAny && present().length === 1;
    if (isAlone && !this.#isTold) {
      const text =
        "verify_groups: one worker takes part, and what is to be verified waits for a second one";
      this.#options.bus.publish({ type: "note", text });
    }
    this.#isTold = isAlone;
  }
}
