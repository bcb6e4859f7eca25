import type { LockstepEvent } from "#lib/core/events";
import { encodeEvent } from "./event-records.js";

/** What waits to be published in one message, and waits on until that is acknowledged. */
export interface OutgoingBatch {
  /** Of its first event. */
  readonly sequence: number;
  /** Of {@link encodeEvent}. */
  readonly events: readonly string[];
}

interface OutboxLimits {
  readonly maxEvents: number;
  readonly maxBytes: number;
  /** Of one message: no event is added beyond it. */
  readonly batchBytes: number;
  /** Of one event; a larger one is dropped. */
  readonly eventBytes: number;
}

interface Waiting {
  readonly json: string;
  readonly bytes: number;
  readonly timeMs: number;
  readonly isPassing: boolean;
  isDropped: boolean;
}

const defaultLimits: OutboxLimits = {
  maxEvents: 20_000,
  maxBytes: 32 << 20,
  batchBytes: 128 << 10,
  eventBytes: 512 << 10,
};
const maxBatchEvents = 512;

/**
 * Events on their way to a server that may be away. Adding never waits and never fails: beyond the limits the
 * oldest of those that pass, states and telemetry, are dropped, and where there is none left the oldest of all.
 * The next message begins with an event that tells how many.
 */
export class EventOutbox {
  readonly #limits: OutboxLimits;
  #waiting: Waiting[] = [];
  /** Of `#waiting`: what is before it is sent or dropped. */
  #head = 0;
  /** Of `#waiting`: no event that passes waits before it. */
  #passing = 0;
  #numWaiting = 0;
  #waitingBytes = 0;
  #sequence = 1;
  #inFlight: OutgoingBatch | undefined;
  #gap: { numEvents: number; numLasting: number; fromMs: number; toMs: number } | undefined;
  #numDropped = 0;
  #numPublished = 0;

  constructor(limits: Partial<OutboxLimits> = {}) {
    this.#limits = { ...defaultLimits, ...limits };
  }

  /** Events that are not acknowledged yet. */
  get length(): number {
    return this.#numWaiting + (this.#inFlight?.events.length ?? 0);
  }

  get numDropped(): number {
    return this.#numDropped;
  }

  get numPublished(): number {
    return this.#numPublished;
  }

  /** Numbers on from where another process of this epoch left off; before the first message is taken. */
  continueAfter(sequence: number): void {
    this.#sequence = sequence + 1;
  }

  add(timeMs: number, event: LockstepEvent): void {
    const json = encodeEvent(timeMs, event);
    const bytes = Buffer.byteLength(json);
    const entry = {
      json,
      bytes,
      timeMs,
      isPassing: passingTypes.has(event.type),
      isDropped: false,
    };
    if (bytes > this.#limits.eventBytes) return this.#count(entry);
    this.#waiting.push(entry);
    this.#numWaiting += 1;
    this.#waitingBytes += bytes;
    while (
      this.#numWaiting > this.#limits.maxEvents ||
      this.#waitingBytes > this.#limits.maxBytes
    ) {
      this.#drop();
    }
  }

  /** The message to send now: the same one until it is acknowledged; undefined: nothing waits. */
  next(): OutgoingBatch | undefined {
    if (this.#inFlight !== undefined) return this.#inFlight;
    const events: string[] = [];
    let bytes = 0;
    const gap = this.#takeGap();
    if (gap !== undefined) events.push(gap);
    while (this.#head < this.#waiting.length && events.length < maxBatchEvents) {
      const entry = this.#waiting[this.#head];
      if (entry !== undefined && !entry.isDropped) {
        if (events.length > 0 && bytes + entry.bytes > this.#limits.batchBytes) break;
        events.push(entry.json);
        bytes += entry.bytes;
        this.#numWaiting -= 1;
        this.#waitingBytes -= entry.bytes;
      }
      this.#head += 1;
    }
    this.#compact();
    if (events.length === 0) return undefined;
    this.#inFlight = { sequence: this.#sequence, events };
    this.#sequence += events.length;
    return this.#inFlight;
  }

  /** The message that {@link next} gave is stored. */
  acknowledge(): void {
    this.#numPublished += this.#inFlight?.events.length ?? 0;
    this.#inFlight = undefined;
  }

  /** Nothing of this will be published any more. @returns how many events are given up */
  giveUp(): number {
    const lost = this.length;
    this.#numDropped += lost;
    this.#waiting = [];
    this.#head = this.#passing = this.#numWaiting = this.#waitingBytes = 0;
    this.#inFlight = undefined;
    return lost;
  }

  #drop(): void {
    this.#passing = Math.max(this.#passing, this.#head);
    while (this.#passing < this.#waiting.length) {
      const entry = this.#waiting[this.#passing];
      if (entry?.isPassing === true && !entry.isDropped) return this.#dropEntry(entry);
      this.#passing += 1;
    }
    while (this.#waiting[this.#head]?.isDropped === true) this.#head += 1;
    const oldest = this.#waiting[this.#head];
    if (oldest !== undefined) this.#dropEntry(oldest);
  }

  #dropEntry(entry: Waiting): void {
    entry.isDropped = true;
    this.#numWaiting -= 1;
    this.#waitingBytes -= entry.bytes;
    this.#count(entry);
    this.#compact();
  }

  #count({ timeMs, isPassing }: Waiting): void {
    this.#numDropped += 1;
    this.#gap ??= { numEvents: 0, numLasting: 0, fromMs: timeMs, toMs: timeMs };
    this.#gap.numEvents += 1;
    if (!isPassing) this.#gap.numLasting += 1;
    this.#gap.fromMs = Math.min(this.#gap.fromMs, timeMs);
    this.#gap.toMs = Math.max(this.#gap.toMs, timeMs);
  }

  #takeGap(): string | undefined {
    if (this.#gap === undefined) return undefined;
    const gap = this.#gap;
    this.#gap = undefined;
    return encodeEvent(gap.toMs, { type: "events.dropped", ...gap });
  }

  /** What was sent or dropped is forgotten once it is the larger part. */
  #compact(): void {
    if (this.#waiting.length < 1_024 || this.#numWaiting * 2 > this.#waiting.length) return;
    this.#waiting = this.#waiting.slice(this.#head).filter(({ isDropped }) => !isDropped);
    this.#head = 0;
    this.#passing = 0;
  }
}

/** Events that a later one of their kind replaces; the others are what a run came to. */
const passingTypes: ReadonlySet<LockstepEvent["type"]> = new Set<LockstepEvent["type"]>([
  "worker.state",
  "worker.telemetry",
  "group.leased",
  "group.completed",
  "log.lines",
  "pushes.waiting",
  "connections.refused",
]);
