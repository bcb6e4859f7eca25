import type { LockstepEvent } from "#lib/core/events";
import { formatSeconds } from "#lib/core/format";
import { printable } from "#lib/core/terminal-text";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { findRun, watchRun, type WatchedEvent } from "#lib/wire/nats/event-watch";
import { readCommandLine, usageOf } from "./command-line.js";
import { natsOptions, natsSettingsOf, openWatcherLink } from "./nats-options.js";
import { chooseColor, chooseMode, type Display, startDisplay } from "./progress/display.js";
import { exitCodes, type StopSignal, stopSignals } from "./stop-signals.js";
import { WatchedJob } from "./watched-job.js";

/** A run that says nothing for so long has died, or waits for workers. */
const silenceMs = 30_000;

/** `lockstep watch`. Returns the exit code: how the run ended. */
export const watchCommand = (args: readonly string[]): Promise<number> =>
  followRun("watch", args, (json) => (json ? new JsonView() : new DisplayView()));

/**
 * Shows a run's events by a view.
 *
 * @param endsAtLatest once everything is shown that is there, instead of at the run's end
 * @returns the exit code: how the run ended; 0 with `endsAtLatest`
 */
export async function followRun(
  command: string,
  args: readonly string[],
  viewOf: (json: boolean) => RunEventsView,
  endsAtLatest = false,
): Promise<number> {
  const usage = usageOf(command);
  const options = { ...natsOptions, json: { type: "boolean", default: false } } as const;
  const { values, positionals } = readCommandLine(args, options, usage);
  const [given, ...rest] = positionals;
  if (rest.length > 0) usage("it takes one run");
  const settings = natsSettingsOf(values, usage);
  const view = viewOf(values.json);
  const link = await openWatcherLink(settings, command, (line) => view.note(line));
  const stop = new AbortController();
  let received: StopSignal | undefined;
  const listeners = stopSignals.map((signal) => {
    const listener = (): void => {
      received ??= signal;
      stop.abort();
    };
    process.on(signal, listener);
    return () => process.off(signal, listener);
  });
  try {
    const job = await WatchedJob.find(link, given);
    const first = await findRun(link, job === undefined ? given : await job.runId());
    view.begin(`run ${printable(first.runName)} (${first.runId})`);
    for (let { runId } = first; ; ) {
      const moved = new AbortController();
      const signal = AbortSignal.any([stop.signal, moved.signal]);
      let outcome: number | undefined;
      let hasEnded = false;
      const following =
        endsAtLatest || job === undefined
          ? undefined
          : job.following(runId, { hasEnded: () => hasEnded, signal }).finally(() => moved.abort());
      // It is waited for below.
      following?.catch(() => {});
      for await (const event of watchRun(link, runId, {
        ...{ signal, onNews: (line) => view.note(line) },
      })) {
        view.show(event);
        outcome =
          outcomeOf(event.event) ?? (event.event.type === "run.started" ? undefined : outcome);
        // A run that was stopped may go on in a later epoch, whose events come then.
        if (endsAtLatest && event.isLatest) return 0;
        hasEnded = outcome !== undefined && event.isLatest;
        // How a job ends its queue says: it may be tried once more.
        if (hasEnded && following === undefined) break;
      }
      moved.abort();
      const next = await following;
      if (received !== undefined) return exitCodes[received];
      if (next === undefined) return outcome ?? 1;
      if ("code" in next) return next.code;
      runId = next.runId;
      view.begin(`the job was begun anew: run ${printable(runId)}`);
    }
  } finally {
    for (const remove of listeners) remove();
    view.close();
    await link.close();
  }
}

/** The exit code that a run's last event stands for; undefined: it is not the last. */
function outcomeOf(event: LockstepEvent): number | undefined {
  if (event.type === "run.failed") return 1;
  if (event.type !== "run.completed") return undefined;
  return event.outcome === "finished" ? 0 : exitCodes.SIGINT;
}

export interface RunEventsView {
  /** Called before the events of a run: of a job's next one, too. */
  begin(line: string): void;
  show(event: WatchedEvent): void;
  note(line: string): void;
  close(): void;
}

/** One JSON object a line: the event beside its run, epoch and sequence number. */
class JsonView implements RunEventsView {
  begin(): void {}

  show({ runId, epoch, sequence, timeMs, event }: WatchedEvent): void {
    const line = { runId, epoch, sequence, time: new Date(timeMs).toISOString(), ...event };
    const json = JSON.stringify(line, (_, value: unknown) =>
      typeof value === "number" && !Number.isFinite(value) ? String(value) : value,
    );
    process.stdout.write(`${json}\n`);
  }

  note(line: string): void {
    process.stderr.write(`${printable(line)}\n`);
  }

  close(): void {}
}

/** The display of `lockstep train`, an epoch after another. */
class DisplayView implements RunEventsView {
  #bus = new InProcessEventBus();
  #display: Display;
  #epoch = 0;
  /** Of the event that is shown; undefined: nothing is left to be shown, and now is now. */
  #timeMs: number | undefined;
  #latestMs = Date.now();
  #isSilent = false;
  readonly #timer: NodeJS.Timeout;

  constructor() {
    this.#display = this.#start();
    this.#timer = setInterval(() => this.#lookForSilence(), 1_000);
  }

  begin(line: string): void {
    if (this.#epoch !== 0) this.#startAnew();
    this.#epoch = 0;
    this.#display.print(line);
  }

  show({ epoch, timeMs, event, isLatest }: WatchedEvent): void {
    if (epoch !== this.#epoch && this.#epoch !== 0) {
      this.#startAnew();
      this.#display.print(`--- goes on in epoch ${epoch}`);
    }
    this.#epoch = epoch;
    this.#timeMs = timeMs;
    if (this.#isSilent) this.#display.setNotice(undefined);
    this.#isSilent = false;
    this.#bus.publish(event);
    this.#latestMs = timeMs;
    if (isLatest) this.#timeMs = undefined;
  }

  note(line: string): void {
    this.#display.note(printable(line));
  }

  close(): void {
    clearInterval(this.#timer);
    this.#display.close();
  }

  /** What the life before knew, its workers for one, is no more. */
  #startAnew(): void {
    this.#display.close();
    this.#bus = new InProcessEventBus();
    this.#display = this.#start();
  }

  #start(): Display {
    const { stdout } = process;
    const isTerminal = stdout.isTTY === true;
    const { TERM: term } = process.env;
    return startDisplay(this.#bus, {
      mode: chooseMode({ isTerminal, jsonLogs: false, plain: false, term }),
      stream: stdout,
      color: chooseColor(isTerminal, process.env),
      nowMs: () => this.#timeMs ?? Date.now(),
    });
  }

  #lookForSilence(): void {
    const silentMs = Date.now() - this.#latestMs;
    if (this.#timeMs !== undefined || this.#isSilent || silentMs < silenceMs) return;
    this.#isSilent = true;
    this.#display.setNotice(
      `no event for ${formatSeconds(silentMs / 1_000)}: the run waits, has lost NATS, or its coordinator died`,
    );
  }
}
