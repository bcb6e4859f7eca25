import { expandHome } from "#lib/core/home-path";
import { DirectoryStore } from "#lib/queue/directory-store";
import { JobQueue } from "#lib/queue/job-queue";

/** Options that say where a queue is. */
export const queueOptions = {
  queue: { type: "string" },
  json: { type: "boolean", default: false },
} as const;

interface QueueValues {
  readonly queue?: string | undefined;
}

interface OpenOptions {
  readonly usage: (problem: string) => never;
  /** How long a call tries to reach the queue. */
  readonly patienceMs: number;
  readonly onNews: (line: string) => void;
}

/** A person waits so long at most. */
export const commandPatienceMs = 10_000;

/** @throws E_USAGE, E_QUEUE_AWAY and what reaching a server comes to */
export async function openQueue(
  values: QueueValues,
  { usage, patienceMs, onNews }: OpenOptions,
): Promise<JobQueue> {
  const { queue } = values;
  if (queue === undefined) return usage("--queue DIR is missing");
  const store = await DirectoryStore.open(expandHome(queue));
  return new JobQueue(store, { patienceMs, onNews });
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
