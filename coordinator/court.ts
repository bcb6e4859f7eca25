import type { EventBus } from "#lib/wire/event-bus";
import type { Jury } from "./compared-work.js";
import type { VerifiedShare } from "./verified-share.js";

interface CourtOptions {
  readonly bus: EventBus;
  readonly verified: VerifiedShare;
  /** Members of now. */
  readonly present: () => readonly string[];
  /** Keeps a worker out for good. */
  readonly ban: (workerId: string, reason: string) => void;
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
  juryOf(kind: "group" | "evaluation", step: number): Jury {
    const { bus, verified, present, ban, brokePromise } = this.#options;
    const isEvaluation = kind === "evaluation";
    const what = (item: number): string =>
      isEvaluation
        ? `batch ${item} of the evaluation after step ${step}`
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
      onBroken: brokePromise,
    };
  }

  /** Tells once that what is verified waits for a second worker. */
  membersChanged(numWorkers: number): void {
    const isAlone = numWorkers === 1 && this.#options.verified.isAny;
    if (isAlone && !this.#isTold) {
      const text =
        "verify_groups: one worker is here, and what is to be verified waits for a second one";
      this.#options.bus.publish({ type: "note", text });
    }
    this.#isTold = isAlone;
  }
}
