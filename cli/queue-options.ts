import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { DirectoryStore } from "#lib/queue/directory-store";
import { JobQueue } from "#lib/queue/job-queue";
import type { RecordStore } from "#lib/queue/record-store";
import { natsOptions, natsSettingsOf } from "./nats-options.js";

/** Options that say where a queue is. */
export const queueOptions = {
  ...natsOptions,
  queue: { type: "string" },
  json: { type: "boolean", default: false },
} as const;

type QueueValues = {
  readonly [Option in keyof typeof natsOptions]?: string | boolean | undefined;
} & {
  readonly queue?: string | undefined;
};

interface OpenOptions {
  readonly usage: (problem: string) => never;
  readonly role: "submitter" | "agent" | "watcher";
  /** Makes the queue where there is none. */
  readonly mayMake: boolean;
  /** How long a call tries to reach the queue. */
  readonly patienceMs: number;
  readonly onNews: (line: string) => void;
  /** Ends the waiting for a queue that is away. */
  readonly signal?: AbortSignal;
}

const tryAgainMs = 1_000;
/** A person waits so long at most. */
const commandPatienceMs = 10_000;

/** Opens a queue for a command that a person waits for. */
export const openQueueFor = (
  values: QueueValues,
  usage: (problem: string) => never,
  role: OpenOptions["role"],
  mayMake = false,
): Promise<JobQueue> =>
  openQueue(values, {
    ...{ usage, role, mayMake, patienceMs: commandPatienceMs },
    onNews: (line) => process.stderr.write(`${line}\n`),
  });

/** @throws E_USAGE, E_QUEUE_AWAY and what reaching a server comes to */
export async function openQueue(values: QueueValues, options: OpenOptions): Promise<JobQueue> {
  const { usage, role, mayMake, patienceMs, onNews } = options;
  const { queue, "nats-url": url } = values;
  if (queue !== undefined && url !== undefined) {
    return usage("--queue and --nats-url name two queues, and one is meant");
  }
  const store = await untilReached(() => openStore(), options);
  return new JobQueue(store, { patienceMs, onNews });

  async function openStore(): Promise<RecordStore> {
    if (queue !== undefined) {
      const without = Object.keys(natsOptions).find(
        (option) => option.startsWith("nats-") && option in values,
      );
      if (without !== undefined) usage(`--${without} has no effect on a queue in a directory`);
      return DirectoryStore.open(expandHome(queue), mayMake);
    }
    const settings = natsSettingsOf(values, (problem) => usage(`--queue DIR or ${problem}`));
    const { NatsLink } = await import("#lib/wire/nats/connection");
    const { NatsRecordStore } = await import("#lib/wire/nats/record-store");
    const link = await NatsLink.open(settings, { role, name: `lockstep ${role}`, onNews });
    return NatsRecordStore.open(link, mayMake);
  }
}

/** Opens again what is away, for as long as there is patience. */
async function untilReached<T>(
  open: () => Promise<T>,
  { patienceMs, onNews, signal }: OpenOptions,
): Promise<T> {
  const sinceMs = performance.now();
  for (let isTold = false; ; isTold = true) {
    try {
      return await open();
    } catch (error) {
      const isAway = isLockstepError(error) && error.retryable;
      if (!isAway || performance.now() - sinceMs > patienceMs || signal?.aborted === true)
        throw error;
      if (!isTold) onNews(`${error.message} It is tried again.`);
      await delay(tryAgainMs, undefined, signal === undefined ? {} : { signal });
    }
  }
}

/** One option may be given several times, and hold several words with commas. */
export const words = (given: readonly string[] | undefined): string[] =>
  (given ?? []).flatMap((each) => each.split(",")).filter((word) => word !== "");

/** @throws E_USAGE */
export function wholeNumber(
  usage: (problem: string) => never,
  name: string,
  text: string,
  [lowest, highest]: readonly [number, number],
): number {
  const value = Number(text);
  if (/^-?\d+$/.test(text) && value >= lowest && value <= highest) return value;
  return usage(`--${name} must be a whole number from ${lowest} to ${highest}, got "${text}"`);
}
