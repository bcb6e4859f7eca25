import {
  DiscardPolicy,
  ErrorCode,
  type JetStreamManager,
  type NatsConnection,
  NatsError,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "nats";
import { LockstepError } from "#lib/core/errors/index";
import type { NatsLink } from "./connection.js";

export const eventStream = "LOCKSTEP_EVENTS";
const subjectPrefix = "lockstep.events";

export const eventSubject = (runId: string): string => `${subjectPrefix}.${runId}`;

/** How long events of all runs are kept; null: as the stream is, or 30 days and any size where it is made. */
export interface EventRetention {
  readonly maxAgeDays: number | null;
  readonly maxGigabytes: number | null;
}

/** Bytes have no default limit: a server refuses a stream that may grow beyond its own. */
const defaultMaxAgeDays = 30;
const nanosecondsPerDay = 86_400e9;
const bytesPerGigabyte = 1e9;
/** A publisher that does not know whether a message arrived sends it again within this time. */
const duplicateWindowNs = 120e9;
/** Of a stream in a cluster: one server may be lost. */
const replicasInCluster = 3;

/** Codes of JetStream's errors, its `err_code`. */
export const streamErrors = {
  notFound: 10_059,
  wrongLastSequence: 10_071,
  noMessage: 10_037,
} as const;
export const noSuitablePeers: ReadonlySet<number> = new Set([10_005, 10_074]);

/**
 * Makes the stream of events, or lets it be kept as long as the settings say. Any number of coordinators may.
 *
 * @returns lines for a person: what was changed, or is not as it should be
 * @throws E_NATS_STREAM
 */
export async function prepareEventStream(
  link: NatsLink,
  retention: EventRetention,
): Promise<readonly string[]> {
  const manager = await link.manager();
  const limits = {
    // The server takes whole numbers alone, and 1.07 GB are none.
    ...(retention.maxAgeDays === null
      ? {}
      : { max_age: Math.round(retention.maxAgeDays * nanosecondsPerDay) }),
    ...(retention.maxGigabytes === null
      ? {}
      : { max_bytes: Math.round(retention.maxGigabytes * bytesPerGigabyte) }),
  };
  try {
    const { config } = await manager.streams.info(eventStream);
    const isSame = Object.entries(limits).every(
      ([key, value]) => config[key as keyof typeof limits] === value,
    );
    if (isSame) return [];
    await manager.streams.update(eventStream, limits);
    return [
      `the stream ${eventStream} now keeps events of all runs ${limitWords(limits)}; it kept them ${limitWords(config)}`,
    ];
  } catch (error) {
    if (codeOf(error) !== streamErrors.notFound) throw streamFailure("keep events", error);
  }
  const config = {
    name: eventStream,
    subjects: [`${subjectPrefix}.*`],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.Old,
    duplicate_window: duplicateWindowNs,
    allow_direct: true,
    max_age: defaultMaxAgeDays * nanosecondsPerDay,
    ...limits,
  };
  return addStream(manager, link.connection, config, "keep events");
}

/** Adds a stream, with three replicas where the server is a cluster that has room for them. */
async function addStream(
  manager: JetStreamManager,
  connection: NatsConnection,
  config: Partial<StreamConfig>,
  what: string,
): Promise<readonly string[]> {
  const isCluster = connection.info?.cluster !== undefined;
  try {
    await manager.streams.add({ ...config, num_replicas: isCluster ? replicasInCluster : 1 });
    return [];
  } catch (error) {
    if (!isCluster || !noSuitablePeers.has(codeOf(error) ?? 0)) throw streamFailure(what, error);
  }
  try {
    await manager.streams.add({ ...config, num_replicas: 1 });
    return [
      `warning: the stream ${config.name} has one replica: this cluster of NATS has no three servers for it`,
    ];
  } catch (error) {
    throw streamFailure(what, error);
  }
}

function limitWords(limits: { readonly max_age?: number; readonly max_bytes?: number }): string {
  const { max_age: age, max_bytes: bytes } = limits;
  const words = [
    ...(age === undefined ? [] : [age === 0 ? "for ever" : `for ${age / nanosecondsPerDay} days`]),
    ...(bytes === undefined || bytes < 0 ? [] : [`up to ${bytes / bytesPerGigabyte} GB`]),
  ];
  return words.join(", ");
}

/** JetStream's own code of an error; undefined: it is another kind of error. */
export function codeOf(error: unknown): number | undefined {
  return error instanceof NatsError ? error.api_error?.err_code : undefined;
}

/** An error of the library as one of the catalogue; one that is of it already stays as it is. */
export function streamFailure(what: string, error: unknown): unknown {
  if (!(error instanceof NatsError)) return error;
  return new LockstepError(
    "E_NATS_STREAM",
    { what, reason: reasonOf(error).replace(/\.$/, "") },
    { cause: error },
  );
}

function reasonOf(error: NatsError): string {
  if (error.api_error !== undefined) return error.api_error.description;
  switch (error.code) {
    case ErrorCode.NoResponders:
      return "JetStream is off, or its cluster has no leader now";
    case ErrorCode.Timeout:
      return "it gave no answer in time";
    case ErrorCode.PermissionsViolation:
      return `this user may not (${error.permissionContext?.operation ?? "use"} ${error.permissionContext?.subject ?? "it"})`;
    default:
      return error.message;
  }
}
