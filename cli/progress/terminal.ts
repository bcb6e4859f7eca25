/** What a painter needs of a terminal. */
export interface TerminalStream {
  write(text: string): unknown;
  readonly columns?: number;
  readonly rows?: number;
}

const clearLine = "\u001b[2K";
const clearBelow = "\u001b[0J";
const hideCursor = "\u001b[?25l";
const showCursor = "\u001b[?25h";
// Synchronised output: terminals that know it draw a frame at once, the others ignore it.
const beginFrame = "\u001b[?2026h";
const endFrame = "\u001b[?2026l";

/** Keeps a block of lines at the bottom of the screen and prints lasting lines above it. */
export class LivePainter {
  readonly #stream: TerminalStream;
  #painted: readonly string[] = [];
  #columns: number;
  #started = false;

  constructor(stream: TerminalStream) {
    this.#stream = stream;
    this.#columns = this.columns;
  }

  get columns(): number {
    return this.#stream.columns ?? 80;
  }

  /** Replaces the block; each line must fit the terminal's width. */
  paint(lines: readonly string[]): void {
    const rows = this.#stream.rows ?? 24;
    // A block as high as the screen would scroll and could not be redrawn.
    const shown = lines.slice(0, Math.max(1, rows - 1));
    if (this.#started && sameLines(shown, this.#painted) && this.#columns === this.columns) return;
    const prefix = this.#started ? "" : hideCursor;
    this.#started = true;
    this.#write(
      `${prefix}${this.#eraseText()}${shown.map((line) => `${clearLine}${line}\n`).join("")}${clearBelow}`,
    );
    this.#painted = shown;
    this.#columns = this.columns;
  }

  /** Prints lines that stay, above the block. */
  print(lines: readonly string[]): void {
    const block = this.#painted;
    this.#write(
      `${this.#eraseText()}${clearBelow}${[...lines, ...block].map((line) => `${line}\n`).join("")}`,
    );
    this.#columns = this.columns;
  }

  /** Removes the block and gives the cursor back. Idempotent. */
  close(): void {
    if (!this.#started) return;
    this.#write(`${this.#eraseText()}${clearBelow}${showCursor}`);
    this.#painted = [];
    this.#started = false;
  }

  #eraseText(): string {
    if (this.#painted.length === 0) return "";
    // After a resize to fewer columns a painted line may have wrapped into several.
    const columns = this.columns;
    const height =
      columns >= this.#columns
        ? this.#painted.length
        : this.#painted.length * Math.ceil(this.#columns / columns);
    return `\r\u001b[${height}A`;
  }

  #write(text: string): void {
    this.#stream.write(`${beginFrame}${text}${endFrame}`);
  }
}

function sameLines(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((line, index) => line === b[index]);
}
