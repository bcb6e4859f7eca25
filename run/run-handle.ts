import { setImmediate } from "node:timers/promises";
import { isLockstepError } from "#lib/core/errors/index";
import type { LockstepEvent } from "#lib/core/events";
import { explainSystemError } from "#lib/core/system-error";
import { type EventSource, InProcessEventBus } from "#lib/wire/event-bus";

/** How a run ended. */
export interface RunResult {
  readonly outcome: "finished" | "interrupted";
  /** Steps of the job that are done, those before a resume included. */
  readonly step: number;
  /** Of the result, or of what a stopped run goes on from; undefined where nothing was saved. */
  readonly directory: string | undefined;
  /** SHA-256 of the trained weights in float32; undefined where this process trained nothing. */
  readonly mastersSha256: string | undefined;
  /** Of training. */
  readonly seconds: number;
}

export interface RunOptions {
  /** Asks for an orderly end, as `requestStop` does. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A run on its way. Iterating over it gives its events from then on and throws the run's error, if it has
 * one; leaving the loop stops the run. It begins once the program waits for something, so a loop that is
 * entered at once sees every event; nothing is kept for one that is entered later.
 */
export interface Run extends AsyncIterable<LockstepEvent>, EventSource {
  /** @throws what ended the run, an error of the catalogue where a person or a peer can cause it */
  readonly outcome: Promise<RunResult>;
  /** Ends the run after the step in progress, or where none is, at the next place between two pieces of work. */
  readonly requestStop: () => void;
}

/** What a run works with: where it tells its events, and whether it is to stop. */
export interface RunContext {
  readonly bus: InProcessEventBus;
  readonly stop: AbortSignal;
  /** Asks for an orderly end, as the run's handle does. */
  readonly requestStop: () => void;
}

/**
 * Starts the work of a run and makes its handle. Prints nothing and listens to no signal of the process.
 *
 * @param close gives up what the run holds, once its end was told
 */
export function startRun(
  { signal }: RunOptions,
  work: (context: RunContext) => Promise<RunResult>,
  close: () => Promise<void> = async () => {},
): Run {
  const bus = new InProcessEventBus();
  const stopping = new AbortController();
  const requestStop = (): void => stopping.abort();
  if (signal?.aborted === true) requestStop();
  signal?.addEventListener("abort", requestStop);
  const outcome = (async () => {
    await setImmediate();
    try {
      return await work({ bus, stop: stopping.signal, requestStop });
    } catch (thrown) {
      const error = explainSystemError(thrown);
      const [code, message] = isLockstepError(error)
        ? [error.code, error.message]
        : ["E_UNEXPECTED", error instanceof Error ? error.message : String(error)];
      bus.publish({ type: "run.failed", code, message });
      throw error;
    } finally {
      signal?.removeEventListener("abort", requestStop);
      await close();
    }
  })();
  return {
    outcome,
    requestStop,
    subscribe: (listener) => bus.subscribe(listener),
    [Symbol.asyncIterator]: () => eventsUntil(outcome, bus, requestStop),
  };
}

/** The events from now on. Who ends the iteration before the run ends it waits for its orderly end. */
async function* eventsUntil(
  outcome: Promise<RunResult>,
  bus: EventSource,
  requestStop: () => void,
): AsyncGenerator<LockstepEvent, void, undefined> {
  let queue: LockstepEvent[] = [];
  let isOver = false;
  let wake = (): void => {};
  const unsubscribe = bus.subscribe((event) => {
    queue.push(event);
    wake();
  });
  const end = (): void => {
    isOver = true;
    wake();
  };
  outcome.then(end, end);
  try {
    while (!isOver || queue.length > 0) {
      const events = queue;
      queue = [];
      yield* events;
      if (queue.length > 0 || isOver) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    unsubscribe();
    if (!isOver) requestStop();
    await outcome;
  }
}
