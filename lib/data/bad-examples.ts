import { LockstepError } from "#lib/core/errors/index";

export type BadExamplePolicy = "error" | "skip";

/** Examples that were left out for one reason. */
export interface LeftOut {
  readonly count: number;
  /** The place of the first. */
  readonly first: string;
}

/** Rejected examples that are listed by name; the others are counted. */
export const maxListedExamples = 20;
/** A data set that loses more than this share of its examples was read the wrong way. */
const maxBadShare = 0.5;

/** What became of examples that cannot be used: the first one ends the run, or each is counted and listed. */
export class BadExamples {
  readonly #policy: BadExamplePolicy;
  readonly #onRejected: ((error: LockstepError) => void) | undefined;
  readonly #listed: string[] = [];
  #count = 0;
  #numBlank = 0;
  #firstBlank = "";
  #numWeightless = 0;
  #firstWeightless = "";

  constructor(policy: BadExamplePolicy, onRejected?: (error: LockstepError) => void) {
    this.#policy = policy;
    this.#onRejected = onRejected;
  }

  get count(): number {
    return this.#count;
  }

  /** Texts of blanks alone, which hold nothing to learn. */
  get blankTexts(): LeftOut {
    return { count: this.#numBlank, first: this.#firstBlank };
  }

  /** A blank text is no fault, but it is told that it was left out. */
  leaveOutBlank(place: string): void {
    if (this.#numBlank++ === 0) this.#firstBlank = place;
  }

  /** Examples of the weight 0, of which nothing is learnt. */
  get weightless(): LeftOut {
    return { count: this.#numWeightless, first: this.#firstWeightless };
  }

  /** The weight 0 is no fault, but it is told that its example was left out. */
  leaveOutWeightless(place: string): void {
    if (this.#numWeightless++ === 0) this.#firstWeightless = place;
  }

  /** Messages of the first ones. */
  get listed(): readonly string[] {
    return this.#listed;
  }

  /** @throws the error itself unless bad examples are skipped, and anything that is not an error of the catalogue */
  reject(error: unknown): void {
    if (this.#policy === "error" || !(error instanceof LockstepError)) throw error;
    this.#count++;
    this.#onRejected?.(error);
    if (this.#listed.length < maxListedExamples)
      this.#listed.push(`${error.code}: ${error.message}`);
  }

  /** @throws E_DATA_TOO_MANY_BAD_ROWS */
  checkShare(numRows: number): void {
    if (this.#count <= maxBadShare * numRows) return;
    const listed = this.#listed.slice(0, 3);
    throw new LockstepError("E_DATA_TOO_MANY_BAD_ROWS", { numBad: this.#count, numRows, listed });
  }
}
