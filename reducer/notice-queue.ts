import type { ShardNotice } from "#lib/wire/reducer-messages";

/** Notices that a slow coordinator has not taken yet; a stream that falls further behind ends, and is opened anew. */
const maxNotices = 10_000;

/** What a coordinator hears of a shard: first what it is begun with, then what happens, until it is ended. */
export class NoticeQueue {
  readonly #notices: ShardNotice[];
  readonly #signal: AbortSignal;
  #isOver = false;
  #wake = (): void => {};

  constructor(first: readonly ShardNotice[], signal: AbortSignal) {
    this.#notices = [...first];
    this.#signal = signal;
    signal.addEventListener("abort", () => this.end());
    if (signal.aborted) this.end();
  }

  add(notice: ShardNotice): void {
    this.#notices.push(notice);
    if (this.#notices.length > maxNotices) this.end();
    this.#wake();
  }

  end(): void {
    this.#isOver = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ShardNotice> {
    while (!this.#isOver && !this.#signal.aborted) {
      const notice = this.#notices.shift();
      if (notice !== undefined) {
        yield notice;
        continue;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
