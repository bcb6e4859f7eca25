import type { Snapshot } from "./options.js";

/** What shards keep, between two steps, for who saves it. */
export interface HeldState {
  readonly snapshot: Snapshot;
  /** Whether training goes on meanwhile, whatever becomes of the save. */
  readonly isCopy: boolean;
  /** Called when the arrays are to be changed, which waits for `release`; not for a copy. */
  readonly onWanted: (callback: () => void) => void;
  /** Nobody reads the arrays any more. */
  readonly release: () => void;
  /** To be read again. @returns false where they have changed since they were released */
  readonly retake: () => boolean;
  /** For which training has waited. */
  readonly waitedSeconds: () => number;
}

export const snapshotBytes = (snapshot: Snapshot): number =>
  snapshot.reduce(
    (sum, { masters, states }) =>
      Object.values(states).reduce((bytes, array) => bytes + array.byteLength, sum) +
      masters.byteLength,
    0,
  );

/** A copy: nobody waits for it but while it is made. */
export const copiedState = (snapshot: Snapshot, copySeconds: number): HeldState => ({
  ...{ snapshot, isCopy: true },
  onWanted: () => {},
  release: () => {},
  retake: () => true,
  waitedSeconds: () => copySeconds,
});

/** The shards' own arrays, which stay as they are until they are released. */
export class LentState implements HeldState {
  readonly snapshot: Snapshot;
  readonly isCopy = false;
  #released: Promise<void> = Promise.resolve();
  #release = (): void => {};
  #isReleased = true;
  #hasChanged = false;
  #onWanted: () => void = () => {};
  #isWanted = false;
  #waitedMs = 0;

  constructor(snapshot: Snapshot) {
    this.snapshot = snapshot;
    this.retake();
  }

  retake(): boolean {
    if (this.#hasChanged) return false;
    if (!this.#isReleased) return true;
    this.#isReleased = false;
    this.#released = new Promise((resolve) => {
      this.#release = resolve;
    });
    return true;
  }

  onWanted(callback: () => void): void {
    this.#onWanted = callback;
    if (this.#isWanted) callback();
  }

  release(): void {
    this.#isReleased = true;
    this.#release();
  }

  waitedSeconds(): number {
    return this.#waitedMs / 1000;
  }

  /** Resolves when the arrays may be changed. */
  async wanted(): Promise<void> {
    if (!this.#isReleased) {
      const startedAt = performance.now();
      this.#isWanted = true;
      this.#onWanted();
      while (!this.#isReleased) await this.#released;
      this.#waitedMs += performance.now() - startedAt;
    }
    this.#hasChanged = true;
  }
}
