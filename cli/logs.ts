import { printable } from "#lib/core/terminal-text";
import type { WatchedEvent } from "#lib/wire/nats/event-watch";
import { logLine } from "./progress/log-lines.js";
import { emptyView, foldEvent } from "./progress/run-view.js";
import { followRun, type RunEventsView } from "./watch.js";

/** `lockstep logs`: what a run and its workers said. Returns the exit code. */
export async function logsCommand(args: readonly string[]): Promise<number> {
  const rest = args.filter((argument) => argument !== "--follow");
  const follows = rest.length < args.length;
  return followRun("logs", rest, (json) => new LogView(json), !follows);
}

/** A line each, with its time and who said it: the coordinator's as it logs them, and its workers'. */
class LogView implements RunEventsView {
  readonly #isJson: boolean;
  #view = emptyView(0);
  #epoch = 0;

  constructor(isJson: boolean) {
    this.#isJson = isJson;
  }

  begin(): void {
    this.#epoch = 0;
  }

  show({ epoch, timeMs, event }: WatchedEvent): void {
    if (epoch !== this.#epoch) this.#view = emptyView(timeMs);
    this.#epoch = epoch;
    this.#view = foldEvent(this.#view, event, timeMs);
    if (event.type !== "log.lines") {
      const line = logLine(event, this.#view, timeMs);
      if (line !== undefined) this.#write(timeMs, "coordinator", line);
      return;
    }
    const { source, lines, numSkippedBytes } = event;
    if (numSkippedBytes > 0) {
      this.#write(timeMs, source, `[${numSkippedBytes} bytes that its log alone has]`);
    }
    for (const line of lines) this.#write(timeMs, source, line);
  }

  note(line: string): void {
    process.stderr.write(`${printable(line)}\n`);
  }

  close(): void {}

  #write(timeMs: number, source: string, text: string): void {
    const time = new Date(timeMs).toISOString();
    const line = this.#isJson
      ? JSON.stringify({ time, source, text })
      : `${time} ${printable(source).padEnd(11)} ${printable(text)}`;
    process.stdout.write(`${line}\n`);
  }
}
