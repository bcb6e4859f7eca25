import { isReplaced } from "#lib/core/errors/replaced";

/** Whether another process has the run by now: nothing is waited for any more then, wherever this one is. */
export class Replacement {
  readonly #told = new AbortController();
  readonly #rejected: Promise<never>;

  constructor() {
    const { signal } = this.#told;
    this.#rejected = new Promise((_resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
    this.#rejected.catch(() => {});
  }

  /** Aborted with the error that says so. */
  get signal(): AbortSignal {
    return this.#told.signal;
  }

  /** @param error what ends the run, of any kind */
  tell(error: unknown): void {
    if (isReplaced(error)) this.#told.abort(error);
  }

  /** @throws what has been told, if that is first */
  async or<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#rejected]);
  }

  /** Calls back once it is told, which may be now. */
  whenTold(callback: () => void): void {
    if (this.signal.aborted) callback();
    else this.signal.addEventListener("abort", callback, { once: true });
  }
}
