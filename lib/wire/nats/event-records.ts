import { LockstepError } from "#lib/core/errors/index";
import type { LockstepEvent } from "#lib/core/events";

/** An event of a run, as its stream keeps it. */
export interface EventRecord {
  readonly runId: string;
  /** The life of the run that published it: a later one has a higher epoch. */
  readonly epoch: number;
  /** From 1 in each epoch, without a gap. */
  readonly sequence: number;
  /** When it happened, milliseconds since 1970. */
  readonly timeMs: number;
  readonly event: LockstepEvent;
}

/** A message of the stream: consecutive events of one epoch. */
export interface EventBatch {
  readonly runId: string;
  readonly epoch: number;
  readonly runName: string;
  /** Of its first event. */
  readonly sequence: number;
  readonly events: readonly { readonly timeMs: number; readonly event: LockstepEvent }[];
}

/** Of the messages; another one is refused. */
const formatVersion = 1;
/** Servers take no longer messages, unless their max_payload is raised. */
const maxMessageBytes = 1 << 20;
/** Of one message; publishers put fewer in. */
const maxBatchEvents = 4_096;

export const isRunId = (text: string): boolean => /^[0-9a-f]{16}$/.test(text);

/** An event in JSON, which has no figures that are not finite: each is an object with its name. */
export function encodeEvent(timeMs: number, event: LockstepEvent): string {
  return JSON.stringify({ t: Math.round(timeMs), e: event }, (_, value: unknown) =>
    typeof value === "number" && !Number.isFinite(value) ? { "": String(value) } : value,
  );
}

/** @param events of {@link encodeEvent}, in order */
export function encodeBatch(
  { runId, runName, epoch, sequence }: Omit<EventBatch, "events">,
  events: readonly string[],
): Uint8Array {
  const head = JSON.stringify({
    v: formatVersion,
    run: runId,
    name: runName,
    epoch,
    seq: sequence,
  });
  return new TextEncoder().encode(`${head.slice(0, -1)},"events":[${events.join(",")}]}`);
}

/**
 * What a message of the stream holds. Texts come without control characters, which would move the cursor of a
 * terminal that shows them.
 *
 * @throws E_EVENT_INVALID
 */
export function decodeBatch(message: Uint8Array): EventBatch {
  const refuse = (problem: string): LockstepError =>
    new LockstepError("E_EVENT_INVALID", { problem });
  if (message.length > maxMessageBytes) {
    throw refuse(`it has ${message.length} bytes, of at most ${maxMessageBytes}`);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(message), revive);
  } catch {
    throw refuse("it is no JSON");
  }
  const { v, run, name, epoch, seq, events } = asObject(parsed) ?? {};
  if (v !== formatVersion) throw refuse(`its version is ${show(v)}, not ${formatVersion}`);
  if (typeof run !== "string" || !isRunId(run)) throw refuse(`its run is ${show(run)}`);
  if (typeof name !== "string") throw refuse(`its name is ${show(name)}`);
  if (!isCount(epoch)) throw refuse(`its epoch is ${show(epoch)}`);
  if (!isCount(seq)) throw refuse(`its sequence number is ${show(seq)}`);
  if (!Array.isArray(events) || events.length === 0 || events.length > maxBatchEvents) {
    throw refuse(`its events are no list of 1 to ${maxBatchEvents}`);
  }
  return {
    ...{ runId: run, runName: name, epoch, sequence: seq },
    events: events.map((entry: unknown) => {
      const { t, e } = asObject(entry) ?? {};
      const event = asObject(e);
      if (typeof t !== "number" || !Number.isSafeInteger(t)) throw refuse("an event has no time");
      if (event === undefined || typeof event.type !== "string") {
        throw refuse("an event has no type");
      }
      // A later release may have types that this one does not know; readers leave those out.
      return { timeMs: t, event: event as unknown as LockstepEvent };
    }),
  };
}

const asObject = (value: unknown): Readonly<Record<string, unknown>> | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;

const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0;

const show = (value: unknown): string => String(JSON.stringify(value)).slice(0, 40);

function revive(this: unknown, _key: string, value: unknown): unknown {
  if (typeof value === "string") {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
    return value.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "\ufffd");
  }
  const name = asObject(value)?.[""];
  return typeof name === "string" && /^(NaN|-?Infinity)$/.test(name) ? Number(name) : value;
}
