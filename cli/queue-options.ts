import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { DirectoryStore } from "#lib/queue/directory-store";
import { JobQueue } from "#lib/queue/job-queue";
import type { RecordStore } from "#lib/queue/record-store";

/** Options that say where a queue is. */
export const queueOptions = {
  queue: { type: "string" },
  "nats-url": { type: "string" },
  "nats-credentials-file": { type: "string" },
  "nats-token-file": { type: "string" },
  "nats-tls-ca-file": { type: "string" },
  "nats-tls-cert-file": { type: "string" },
  "nats-tls-key-file": { type: "string" },
  insecure: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
} as const;

/** Of a server alone. */
const natsOptions = [
  ...(["nats-credentials-file", "nats-token-file"] as const),
  ...(["nats-tls-ca-file", "nats-tls-cert-file", "nats-tls-key-file"] as const),
] as const;

type QueueValues = {
  readonly [Option in "queue" | "nats-url" | (typeof natsOptions)[number]]?: string | undefined;
} & { readonly insecure: boolean };

interface OpenOptions {
  readonly usage: (problem: string) => never;
  readonly role: "submitter" | "agent" | "watcher";
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
): Promise<JobQueue> =>
  openQueue(values, {
    ...{ usage, role, patienceMs: commandPatienceMs },
    onNews: (line) => process.stderr.write(`${line}\n`),
  });

/** @throws E_USAGE, E_QUEUE_AWAY and what reaching a server comes to */
export async function openQueue(values: QueueValues, options: OpenOptions): Promise<JobQueue> {
  const { usage, role, patienceMs, onNews } = options;
  const { queue, "nats-url": url } = values;
  if (queue === undefined && url === undefined)
    return usage("--queue DIR or --nats-url URL is missing");
  if (queue !== undefined && url !== undefined) {
    return usage("--queue and --nats-url name two queues, and one is meant");
  }
  const store = await untilReached(() => openStore(), options);
  return new JobQueue(store, { patienceMs, onNews });

  async function openStore(): Promise<RecordStore> {
    if (queue === undefined) return openNats(url ?? "", values, { role, onNews });
    return openDirectory(queue);
  }

  function openDirectory(directory: string): Promise<RecordStore> {
    const without = natsOptions.find((option) => values[option] !== undefined);
    if (without !== undefined) usage(`--${without} has no effect without --nats-url`);
    return DirectoryStore.open(expandHome(directory));
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

async function openNats(
  url: string,
  values: QueueValues,
  { role, onNews }: Pick<OpenOptions, "role" | "onNews">,
): Promise<RecordStore> {
  const file = (option: (typeof natsOptions)[number]): string | null => {
    const given = values[option];
    return given === undefined ? null : expandHome(given);
  };
  const { NatsLink } = await import("#lib/wire/nats/connection");
  const { NatsRecordStore } = await import("#lib/wire/nats/record-store");
  const link = await NatsLink.open(
    {
      url,
      credentialsFile: file("nats-credentials-file"),
      tokenFile: file("nats-token-file"),
      tlsCaFile: file("nats-tls-ca-file"),
      tlsCertFile: file("nats-tls-cert-file"),
      tlsKeyFile: file("nats-tls-key-file"),
      insecure: values.insecure,
    },
    { role, name: `lockstep ${role}`, onNews },
  );
  return NatsRecordStore.open(link);
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
