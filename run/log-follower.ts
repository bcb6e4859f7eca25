import { closeSync, fstatSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import type { LockstepEvent } from "#lib/core/events";

type LogLines = Extract<LockstepEvent, { type: "log.lines" }>;

const lookMs = 500;
/** Of one log at one look; what is before it is skipped, and told. */
const maxBytes = 32 << 10;
const maxLineChars = 2_000;

interface Followed {
  offset: number;
  /** The beginning of a line whose end is not written yet. */
  rest: string;
}

/** Tells what workers of this machine write into their logs, from now on. */
export class LogFollower {
  readonly #directory: string;
  readonly #tell: (lines: LogLines) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #files = new Map<string, Followed>();

  constructor(directory: string, tell: (lines: LogLines) => void) {
    this.#directory = directory;
    this.#tell = tell;
    // What earlier lives of the run wrote was told then.
    for (const name of this.#names()) {
      this.#files.set(name, { offset: sizeOf(join(directory, name)), rest: "" });
    }
    this.#timer = setInterval(() => this.look(), lookMs);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Now, instead of a moment later. */
  look(): void {
    for (const name of this.#names()) {
      const known = this.#files.get(name) ?? { offset: 0, rest: "" };
      this.#files.set(name, known);
      try {
        this.#read(name, known);
      } catch {
        // A log that is taken away is no matter of the run.
      }
    }
  }

  #read(name: string, followed: Followed): void {
    const descriptor = openSync(join(this.#directory, name), "r");
    try {
      const { size } = fstatSync(descriptor);
      if (size < followed.offset) Object.assign(followed, { offset: 0, rest: "" });
      const numSkippedBytes = Math.max(0, size - followed.offset - maxBytes);
      if (numSkippedBytes > 0) {
        followed.offset += numSkippedBytes;
        followed.rest = "";
      }
      const bytes = Buffer.alloc(size - followed.offset);
      const numRead = readSync(descriptor, bytes, 0, bytes.length, followed.offset);
      if (numRead === 0) return;
      followed.offset += numRead;
      const parts = `${followed.rest}${bytes.toString("utf8", 0, numRead)}`.split("\n");
      followed.rest = (parts.pop() ?? "").slice(0, maxLineChars);
      if (parts.length === 0) return;
      const lines = parts.map((line) => line.slice(0, maxLineChars));
      this.#tell({ type: "log.lines", source: name.replace(/\.log$/, ""), lines, numSkippedBytes });
    } finally {
      closeSync(descriptor);
    }
  }

  #names(): string[] {
    try {
      return readdirSync(this.#directory).filter((name) => /^worker-\d+\.log$/.test(name));
    } catch {
      // Before the first worker there is none; a coordinator has none at all.
      return [];
    }
  }
}

function sizeOf(file: string): number {
  try {
    return statSync(file).size;
  } catch {
    return 0;
  }
}
