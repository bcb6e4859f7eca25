import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import {
  AckPolicy,
  type ConsumerMessages,
  DeliverPolicy,
  type JsMsg,
  type JetStreamManager,
  type StoredMsg,
} from "nats";
import { LockstepError } from "#lib/core/errors/index";
import type { NatsLink } from "./connection.js";
import { decodeBatch, type EventBatch, type EventRecord, isRunId } from "./event-records.js";
import { codeOf, eventStream, eventSubject, streamErrors, streamFailure } from "./event-stream.js";

/** A run that the stream knows. */
interface StreamedRun {
  readonly runId: string;
  readonly runName: string;
  /** The latest one. */
  readonly epoch: number;
  /** When its latest event happened, milliseconds since 1970. */
  readonly latestMs: number;
  /** How its latest epoch ended; undefined: it goes on, or its coordinator died. */
  readonly outcome: "finished" | "interrupted" | "failed" | undefined;
}

interface WatchOptions {
  readonly signal: AbortSignal;
  /** Called with a line for a person. */
  readonly onNews: (line: string) => void;
}

/** A watched event. */
export interface WatchedEvent extends EventRecord {
  /** Nothing that is stored comes after it now. */
  readonly isLatest: boolean;
}

/** Runs that are asked for their latest message at once. */
const askedAtOnce = 100;
/** Messages that a watcher asks for ahead. */
const messagesAhead = 64;
/** So long without a message a watcher looks whether it has missed one. */
const idleMs = 5_000;
const retryMs = 500;
/** A consumer whose watcher is gone. */
const forgottenAfterNs = 60e9;

/**
 * The events of a run from its first one on, and then those that come, each once and in order, until the signal.
 * The server may be away meanwhile.
 *
 * @throws E_NATS_STREAM, E_EVENT_INVALID
 */
export async function* watchRun(
  link: NatsLink,
  runId: string,
  { signal, onNews }: WatchOptions,
): AsyncGenerator<WatchedEvent, void, undefined> {
  const subject = eventSubject(runId);
  const place = new Place(onNews);
  let told = "";
  while (!signal.aborted) {
    try {
      const latest = await latestOf(link, subject);
      // The stream was lost and made anew, and counts from 1 again; what was seen is known by its epoch.
      if ((latest?.seq ?? 0) < place.next - 1) place.next = 1;
      for await (const message of messagesFrom(link, subject, place.next, signal)) {
        const isNewest = message.info.pending === 0;
        if (message.seq < place.next) continue;
        place.next = message.seq + 1;
        const fresh = place.fresh(decodeBatch(message.data));
        for (const [index, record] of fresh.entries()) {
          yield { ...record, isLatest: isNewest && index === fresh.length - 1 };
        }
        told = "";
      }
    } catch (thrown) {
      if (thrown instanceof LockstepError) throw thrown;
      const error = streamFailure("give the events of a run", thrown);
      if (signal.aborted) break;
      const text = error instanceof Error ? error.message : String(error);
      // The first run makes the stream.
      const isThere = codeOf(thrown) !== streamErrors.notFound;
      if (text !== told && link.isOpen && isThere) onNews(`${text}; it is tried again`);
      told = text;
    }
    await delay(retryMs, undefined, { signal }).catch(() => {});
  }
}

/** How far a watcher is: in the stream, and in the epochs of the run. */
class Place {
  readonly #onNews: (line: string) => void;
  /** Sequence number in the stream. */
  next = 1;
  #epoch = 0;
  #sequence = 0;

  constructor(onNews: (line: string) => void) {
    this.#onNews = onNews;
  }

  /** What of a message was not seen yet. A gap is told: retention takes the oldest messages away. */
  fresh({ runId, epoch, sequence, events }: EventBatch): EventRecord[] {
    if (epoch < this.#epoch) return [];
    const [before, seen] = [this.#epoch, this.#sequence];
    if (epoch > before) {
      this.#epoch = epoch;
      this.#sequence = 0;
    }
    if (before === 0 && epoch > 1) {
      this.#onNews(`of what came before epoch ${epoch} of this run nothing is kept`);
    }
    if (sequence > this.#sequence + 1) {
      const others =
        before > 0 && epoch > before ? `, and events after ${seen} of epoch ${before} may be` : "";
      this.#onNews(
        `events ${this.#sequence + 1} to ${sequence - 1} of epoch ${epoch} are not kept any more${others}`,
      );
    }
    const fresh = events
      .map(({ timeMs, event }, index) => ({
        ...{ runId, epoch, sequence: sequence + index },
        ...{ timeMs, event },
      }))
      .filter((record) => record.sequence > this.#sequence);
    this.#sequence = Math.max(this.#sequence, sequence + events.length - 1);
    return fresh;
  }
}

/** Messages of a consumer of its own, which ends where it seems to have stalled or the signal comes. */
async function* messagesFrom(
  link: NatsLink,
  subject: string,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<JsMsg, void, undefined> {
  const manager = await link.manager();
  // The library's own ordered consumer waits half a minute where a cluster has no leader for a moment.
  const consumer = await link.ask(async () => {
    const { name } = await manager.consumers.add(eventStream, {
      name: `watch-${randomUUID()}`,
      filter_subject: subject,
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: from,
      ack_policy: AckPolicy.None,
      mem_storage: true,
      num_replicas: 1,
      inactive_threshold: forgottenAfterNs,
    });
    return link.streams.consumers.get(eventStream, name);
  });
  const messages = await consumer.consume({
    max_messages: messagesAhead,
    abort_on_missing_resource: true,
  });
  const stall = new StallGuard(link, subject, messages, from);
  const end = (): void => messages.stop();
  signal.addEventListener("abort", end);
  try {
    if (signal.aborted) return;
    let delivered = 0;
    for await (const message of messages) {
      // One before it was lost on its way: the next consumer begins there.
      if (message.info.deliverySequence !== ++delivered) return;
      stall.saw(message.seq);
      yield message;
    }
  } finally {
    signal.removeEventListener("abort", end);
    stall.close();
    messages.stop();
    // It goes by itself after a while; a server that is away cannot be asked.
    await link.ask(() => consumer.delete()).catch(() => {});
  }
}

/** Ends a consumer that brings nothing though there is something: its server died, or forgot it. */
class StallGuard {
  readonly #timer: NodeJS.Timeout;
  #seen: number;
  #sinceMs = performance.now();

  constructor(link: NatsLink, subject: string, messages: ConsumerMessages, from: number) {
    this.#seen = from - 1;
    this.#timer = setInterval(() => {
      if (!link.isOpen || performance.now() - this.#sinceMs < idleMs) return;
      this.#sinceMs = performance.now();
      const seen = this.#seen;
      void latestOf(link, subject)
        .then((latest) => {
          if (latest !== undefined && latest.seq !== seen && this.#seen === seen) messages.stop();
        })
        .catch(() => {});
    }, idleMs);
  }

  saw(sequence: number): void {
    this.#seen = sequence;
    this.#sinceMs = performance.now();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

async function latestOf(link: NatsLink, subject: string): Promise<StoredMsg | undefined> {
  const manager = await link.manager();
  return link.ask(() => latestMessage(manager, subject));
}

async function latestMessage(
  manager: JetStreamManager,
  subject: string,
): Promise<StoredMsg | undefined> {
  try {
    return await manager.streams.getMessage(eventStream, { last_by_subj: subject });
  } catch (error) {
    if (codeOf(error) === streamErrors.noMessage) return undefined;
    throw error;
  }
}

/**
 * The runs whose events the stream has, the one with the latest event first.
 *
 * @throws E_NATS_STREAM
 */
export async function listRuns(link: NatsLink): Promise<StreamedRun[]> {
  try {
    const manager = await link.manager();
    const { state } = await manager.streams.info(eventStream, {
      subjects_filter: eventSubject("*"),
    });
    // In the order of their ids, which says nothing of which is the latest.
    const subjects = Object.keys(state.subjects ?? {});
    const runs: StreamedRun[] = [];
    for (let at = 0; at < subjects.length; at += askedAtOnce) {
      const some = await Promise.all(
        subjects.slice(at, at + askedAtOnce).map(async (subject) => {
          const message = await latestMessage(manager, subject);
          return message === undefined ? undefined : runOrNone(message.data);
        }),
      );
      runs.push(...some.filter((run) => run !== undefined));
    }
    return runs.sort((a, b) => b.latestMs - a.latestMs);
  } catch (error) {
    if (codeOf(error) === streamErrors.notFound) return [];
    throw streamFailure("list the runs", error);
  }
}

/** @throws E_NATS_STREAM */
async function knownRun(link: NatsLink, runId: string): Promise<StreamedRun | undefined> {
  try {
    const message = await latestOf(link, eventSubject(runId));
    return message === undefined ? undefined : runOf(decodeBatch(message.data));
  } catch (error) {
    if (codeOf(error) === streamErrors.notFound) return undefined;
    throw streamFailure("give the events of a run", error);
  }
}

/**
 * The run that a person means: by its id, the beginning of that, or its name; the latest of several of one name.
 * Without any of these the latest one.
 *
 * @throws E_RUN_UNKNOWN, E_NATS_STREAM
 */
export async function findRun(link: NatsLink, given: string | undefined): Promise<StreamedRun> {
  if (given !== undefined && isRunId(given)) {
    const run = await knownRun(link, given);
    if (run !== undefined) return run;
  }
  const runs = await listRuns(link);
  const found =
    given === undefined
      ? runs[0]
      : (runs.find(({ runName }) => runName === given) ??
        runs.find(({ runId }) => given.length >= 4 && runId.startsWith(given)));
  if (found !== undefined) return found;
  const known = runs.slice(0, 8).map(({ runId, runName }) => `${runName} (${runId})`);
  throw new LockstepError("E_RUN_UNKNOWN", {
    run: given ?? "",
    servers: link.servers,
    known: known.join(", "),
  });
}

/** What is no run's, of another release for one, hides none of the others. */
function runOrNone(data: Uint8Array): StreamedRun | undefined {
  try {
    return runOf(decodeBatch(data));
  } catch {
    return undefined;
  }
}

function runOf({ runId, runName, epoch, events }: EventBatch): StreamedRun {
  const latest = events.at(-1);
  const end = events.findLast(
    ({ event }) => event.type === "run.completed" || event.type === "run.failed",
  )?.event;
  return {
    ...{ runId, runName, epoch },
    latestMs: latest?.timeMs ?? 0,
    outcome: end?.type === "run.completed" ? end.outcome : end && "failed",
  };
}
