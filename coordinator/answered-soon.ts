import { controlTimeoutMs } from "#lib/wire/limits";

/** A shard may be away for as long as reducer_timeout_ms; a worker that waits for it is answered before its call ends. */
const soonMs = controlTimeoutMs / 2;

/** @returns whether it was done soon; else it still goes on. @throws what it fails with soon */
export async function answeredSoon(done: Promise<void> | void): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, soonMs, false);
  });
  try {
    return await Promise.race([Promise.resolve(done).then(() => true as const), late]);
  } finally {
    clearTimeout(timer);
  }
}
