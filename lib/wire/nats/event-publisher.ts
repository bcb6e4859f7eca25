import { setTimeout as delay } from "node:timers/promises";
import { ErrorCode, NatsError } from "nats";
import { isLockstepError } from "#lib/core/errors/index";
import type { LockstepEvent } from "#lib/core/events";
import type { EventSource } from "#lib/wire/event-bus";
import type { NatsLink } from "./connection.js";
import { EventOutbox, type OutgoingBatch } from "./event-outbox.js";
import { decodeBatch, encodeBatch, type EventBatch } from "./event-records.js";
import {
  codeOf,
  eventStream,
  eventSubject,
  type EventRetention,
  prepareEventStream,
  streamErrors,
  streamFailure,
} from "./event-stream.js";

interface PublisherOptions {
  /** Opens the connection; tried again while no server answers. */
  readonly connect: () => Promise<NatsLink>;
  readonly retention: EventRetention;
  /** Called with a line for a person. */
  readonly onNews: (line: string) => void;
  /** Called once the run's events are published by a connection. */
  readonly onStreaming?: (link: NatsLink, run: RunEpoch) => void;
  readonly nowMs?: () => number;
  readonly limits?: ConstructorParameters<typeof EventOutbox>[0];
}

/** Whose events these are. */
interface RunEpoch {
  readonly runId: string;
  readonly runName: string;
  readonly epoch: number;
}

/** Between two attempts at a server that is away or refuses. */
const retryMs = 500;
/** Attempts that fail in a way that passes, before it is told. */
const quietFailures = 3;
/** Of one message. */
const publishTimeoutMs = 5_000;
/** Of a cluster whose leader died; mostly it is half of that. */
const electionMs = 9_000;
/** Until a message is stored that began beside an election: what was asked in its last moment gets no answer. */
export const farewellMs = electionMs + 2 * (publishTimeoutMs + retryMs);

/**
 * Publishes the events of a bus to the run's subject of the stream: in order, each once, and never holding the run
 * back. One message is under way at a time, with the sequence number that the subject's last message must have:
 * what was stored though its acknowledgement got lost is recognised, and nothing of an epoch comes after
 * something of a later one.
 */
export class EventPublisher {
  readonly #options: PublisherOptions;
  readonly #outbox: EventOutbox;
  readonly #unsubscribe: () => void;
  readonly #closing = new AbortController();
  readonly #ended: Promise<void>;
  #run: RunEpoch | undefined;
  #link: NatsLink | undefined;
  #wake = (): void => {};
  #isFenced = false;
  #told = "";

  constructor(bus: EventSource, options: PublisherOptions) {
    this.#options = options;
    this.#outbox = new EventOutbox(options.limits);
    const nowMs = options.nowMs ?? Date.now;
    this.#unsubscribe = bus.subscribe((event) => {
      if (this.#isFenced || isCountedOnly(event)) return;
      this.#outbox.add(nowMs(), event);
      this.#wake();
    });
    this.#ended = this.#publishAll();
  }

  /** For metrics. */
  get figures(): {
    readonly numPublished: number;
    readonly numDropped: number;
    readonly numWaiting: number;
  } {
    const { numPublished, numDropped, length: numWaiting } = this.#outbox;
    return { numPublished, numDropped, numWaiting };
  }

  /** What was published before waits for this: a run is known once its data and model are. */
  begin(run: RunEpoch): void {
    this.#run = run;
    this.#wake();
  }

  /**
   * Waits until everything is stored, for so long, and ends.
   *
   * @returns events that the stream does not have
   */
  async close(timeoutMs: number): Promise<number> {
    this.#unsubscribe();
    const deadline = AbortSignal.timeout(timeoutMs);
    while (this.#run !== undefined && this.#outbox.length > 0 && !deadline.aborted) {
      await delay(20, undefined, { signal: deadline }).catch(() => {});
      if (this.#isFenced) break;
    }
    this.#closing.abort();
    this.#wake();
    // What is still asked ends with it; one that is opened meanwhile comes after.
    await this.#link?.close();
    await this.#ended;
    await this.#link?.close();
    const lost = this.#outbox.giveUp();
    // A run that was never known has no stream.
    return this.#run === undefined ? 0 : lost;
  }

  async #publishAll(): Promise<void> {
    const { signal } = this.#closing;
    /** Of the subject's last message; undefined: it has to be looked at. */
    let last: number | undefined;
    let isFirst = true;
    let numFailures = 0;
    while (!signal.aborted && !this.#isFenced) {
      const run = this.#run;
      if (run === undefined || this.#outbox.length === 0) {
        await this.#untilWoken();
        continue;
      }
      try {
        const link = await this.#open();
        if (last === undefined) {
          const found = await this.#lastMessage(link, run);
          last = found.sequence;
          if (found.batch !== undefined && found.batch.epoch > run.epoch) {
            this.#fence(found.batch.epoch);
            break;
          }
          const end = endIn(found.batch, run);
          if (isFirst) {
            this.#outbox.continueAfter(end);
            this.#options.onStreaming?.(link, run);
          }
          isFirst = false;
          const sent = this.#outbox.next();
          if (sent !== undefined && end >= sent.sequence) this.#outbox.acknowledge();
        }
        const batch = this.#outbox.next();
        if (batch === undefined) continue;
        last = await this.#send(link, run, batch, last);
        this.#outbox.acknowledge();
        numFailures = 0;
        this.#told = "";
      } catch (error) {
        if (signal.aborted) break;
        last = undefined;
        if (codeOf(error) === streamErrors.wrongLastSequence) continue;
        numFailures += 1;
        // A cluster that elects its leader is back by then.
        if (numFailures > quietFailures || !isPassing(error)) this.#tell(error);
        await delay(retryMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  /** @returns the sequence number that the stream gave it */
  async #send(
    link: NatsLink,
    run: RunEpoch,
    { sequence, events }: OutgoingBatch,
    lastSubjectSequence: number,
  ): Promise<number> {
    const message = encodeBatch({ ...run, sequence }, events);
    const { seq } = await link.ask(() =>
      link.streams.publish(eventSubject(run.runId), message, {
        msgID: `${run.runId}-${run.epoch}-${sequence}`,
        expect: { streamName: eventStream, lastSubjectSequence },
        timeout: publishTimeoutMs,
      }),
    );
    return seq;
  }

  /** The connection, with the stream made sure of once. */
  async #open(): Promise<NatsLink> {
    if (this.#link === undefined) {
      const link = await this.#options.connect();
      try {
        await this.#prepare(link);
      } catch (error) {
        await link.close();
        throw error;
      }
      this.#link = link;
    }
    const link = this.#link;
    while (!link.isOpen && !this.#closing.signal.aborted) await this.#untilReopened(link);
    return link;
  }

  async #prepare(link: NatsLink): Promise<void> {
    const lines = await link.ask(() => prepareEventStream(link, this.#options.retention));
    for (const line of lines) this.#options.onNews(line);
  }

  /** What the subject ends with. A later epoch there ends this publisher. */
  async #lastMessage(
    link: NatsLink,
    run: RunEpoch,
  ): Promise<{ readonly sequence: number; readonly batch: EventBatch | undefined }> {
    const manager = await link.manager();
    try {
      const query = { last_by_subj: eventSubject(run.runId) };
      const message = await link.ask(() => manager.streams.getMessage(eventStream, query));
      const batch = decodedOrNone(message.data);
      return { sequence: message.seq, batch };
    } catch (error) {
      if (codeOf(error) === streamErrors.noMessage) return { sequence: 0, batch: undefined };
      if (codeOf(error) === streamErrors.notFound) {
        // The server lost its store, or somebody removed the stream.
        await this.#prepare(link);
        this.#options.onNews(
          `the stream ${eventStream} was gone and is made anew; what it held of this run is lost`,
        );
        return { sequence: 0, batch: undefined };
      }
      throw error;
    }
  }

  #fence(epoch: number): void {
    this.#isFenced = true;
    const lost = this.#outbox.giveUp();
    this.#options.onNews(
      `epoch ${epoch} of this run publishes events now; ${lost} events of epoch ${this.#run?.epoch} are not published`,
    );
  }

  /** Tells of a failure once, until something else comes. */
  #tell(thrown: unknown): void {
    // The link told that it is lost.
    if (this.#link?.isOpen === false) return;
    const error = streamFailure("keep events", thrown);
    const text = isLockstepError(error) ? `${error.code}: ${error.message}` : String(error);
    if (text === this.#told) return;
    this.#told = text;
    this.#options.onNews(`events are kept here until they can be published: ${text}`);
  }

  async #untilWoken(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#closing.signal.aborted) resolve();
    });
    this.#wake = () => {};
  }

  async #untilReopened(link: NatsLink): Promise<void> {
    const { signal } = this.#closing;
    let over = (): void => {};
    const reopened = new Promise<void>((resolve) => {
      over = resolve;
    });
    const unsubscribe = link.onReopened(over);
    signal.addEventListener("abort", over);
    if (link.isOpen || signal.aborted) over();
    await reopened;
    unsubscribe();
    signal.removeEventListener("abort", over);
  }
}

/** Several a second a worker, and of no use to who watches: metrics count them. */
const isCountedOnly = ({ type }: LockstepEvent): boolean =>
  type === "rpc.handled" || type === "bytes.transferred";

/** An answer that came too late, or none because a cluster elects its leader. */
const isPassing = (error: unknown): boolean =>
  error instanceof NatsError &&
  [ErrorCode.Timeout, ErrorCode.Disconnect, ErrorCode.NoResponders].some(
    (code) => code === error.code,
  );

/** The last sequence number of an epoch that is stored, where the subject ends with a message of it. */
const endIn = (stored: EventBatch | undefined, { epoch }: RunEpoch): number =>
  stored?.epoch === epoch ? stored.sequence + stored.events.length - 1 : 0;

/** What others left on the subject is not this publisher's to judge. */
function decodedOrNone(data: Uint8Array): EventBatch | undefined {
  try {
    return decodeBatch(data);
  } catch {
    return undefined;
  }
}
