/** What a preparation has opened, to be closed in the opposite order. */
export class OpenResources {
  readonly #closers: (() => Promise<void> | void)[] = [];
  #isClosed = false;

  get isClosed(): boolean {
    return this.#isClosed;
  }

  add(close: () => Promise<void> | void): void {
    this.#closers.push(close);
  }

  /** Closes everything, once; what fails to close keeps nothing else open. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const closers = this.#closers.splice(0).reverse();
    const errors: unknown[] = [];
    for (const close of closers) {
      try {
        await close();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}
