import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError } from "#lib/core/errors/index";
import type { EventBus } from "#lib/wire/event-bus";
import type { ShardStatus } from "#lib/wire/reducer-messages";
import type { ShardHandle, StartShard, StartShardOptions } from "#coordinator/shards";

/** A process that keeps a shard, or is to. */
export interface Replica {
  readonly handle: ShardHandle;
  /** Which of the two places it has. */
  readonly index: 0 | 1;
}

/** What starts the copies of a shard, by their place. */
type StartReplicas = readonly [StartShard, StartShard];

export interface MirrorOptions {
  /** Starts each copy. */
  readonly replicas: StartReplicas;
  /** Updates between two comparisons of all that both keep, beside those before each save; 0: only these. */
  readonly compareSteps: number;
  readonly bus: Pick<EventBus, "publish">;
  /** Whether a copy that a coordinator before left has all that the run needs: then the other one may come later. */
  readonly isReached?: (status: ShardStatus) => boolean;
}

/** Until a copy that could not be started is looked for again. */
const seekAgainMs = 1_000;

/** Whether an error says that a copy is there no more, with what it kept. */
export const isGone = (error: unknown): boolean =>
  isLockstepError(error) && ["E_SHARD_LOST", "E_SHARD_FAILED", "E_CLOSED"].includes(error.code);

/** How long a copy is waited for where the other one has all that the run needs. */
const otherCopyMs = 2_000;

/**
 * Starts both copies, or finds them as a coordinator before left them.
 *
 * @returns those that are there, and why one is not
 * @throws what they throw, where none is there, or one is there and refuses
 */
export async function startBoth(
  { replicas, isReached = () => false }: Pick<MirrorOptions, "replicas" | "isReached">,
  options: StartShardOptions,
): Promise<{
  readonly found: readonly [Replica, Replica?];
  readonly missing: unknown;
}> {
  const late = new AbortController();
  const { signal = late.signal } = options;
  const ended = AbortSignal.any([signal, late.signal]);
  const starting = replicas.map((start, index) =>
    // Of threads of one process only the first can have a port that is named.
    start({ ...options, signal: ended, ...(index === 0 ? {} : { listenPort: 0 }) }),
  );
  let timer: NodeJS.Timeout | undefined;
  const look = async (copy: Promise<ShardHandle>): Promise<void> => {
    if (isReached(await (await copy).status())) {
      timer ??= setTimeout(() => late.abort(), otherCopyMs).unref();
    }
  };
  // Whichever fails is told of below.
  for (const copy of starting) look(copy).catch(() => {});
  const started = await Promise.allSettled(starting);
  clearTimeout(timer);
  const found = started.flatMap((result, index): Replica[] =>
    result.status === "fulfilled" ? [{ handle: result.value, index: index === 0 ? 0 : 1 }] : [],
  );
  const failed = started.find((result) => result.status === "rejected");
  const [one, other] = found;
  if (one === undefined || (failed !== undefined && !isGone(failed.reason))) {
    await Promise.allSettled(found.map(({ handle }) => handle.close()));
    throw failed?.reason;
  }
  const missing = late.signal.aborted
    ? new Error(`it did not answer within ${otherCopyMs / 1000} s, and the run goes on without it`)
    : failed?.reason;
  return { found: other === undefined ? [one] : [one, other], missing };
}

/**
 * Starts a copy in the place of one that is gone, as soon as that can be done.
 *
 * @param hooks.signal aborted when it is not wanted any more
 * @param hooks.onRefused called where a process is there and refuses, each time
 * @returns undefined when it is not wanted any more
 */
export async function seekReplica(
  start: StartShard,
  options: StartShardOptions,
  { signal, onRefused }: { signal: AbortSignal; onRefused: (error: unknown) => void },
): Promise<ShardHandle | undefined> {
  while (!signal.aborted) {
    try {
      const handle = await start({ ...options, listenPort: 0, signal });
      if (!signal.aborted) return handle;
      await handle.close();
    } catch (error) {
      if (!signal.aborted && !isGone(error)) onRefused(error);
    }
    await delay(seekAgainMs, undefined, { ref: false, signal }).catch(() => {});
  }
  return undefined;
}

/**
 * Tells, once for each reason, why a shard gets no mirror: another run may have that process, and the copy that is
 * there goes on without it.
 */
export function refusedMirror(
  bus: Pick<EventBus, "publish">,
  shardIndex: number,
): (error: unknown) => void {
  let told = "";
  return (error) => {
    const reason = messageOf(error);
    const text = `warning: shard ${shardIndex} gets no mirror for now: ${reason}`;
    if (text !== told) bus.publish({ type: "note", text });
    told = text;
  };
}

export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
