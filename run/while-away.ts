import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import { saveRepeatedly } from "#lib/checkpoint/repeated-save";
import type { ResolvedConfig } from "#lib/config/index";
import type { OwnProcesses } from "./own-processes.js";
import { shardsOutlive } from "./recovered-run.js";
import type { LeadClaim } from "./leader-lease.js";
import { findStart, mayBeFinished, type RunStart } from "./start.js";

interface Waiting {
  /** Nobody waits any more. */
  readonly stop: AbortSignal;
  /** A line for a person. */
  readonly note: (text: string) => void;
}

/**
 * Looks for the checkpoint that a run goes on from, and does so again while the file system or a store refuses it, which
 * may pass.
 *
 * @throws what the search throws, when it is given up
 */
export async function whileAway<T>(
  search: () => Promise<T>,
  { limitMs, stop, note }: Waiting & { readonly limitMs: number },
): Promise<T> {
  const giveUpAtMs = awakeMs() + limitMs;
  return saveRepeatedly(search, {
    giveUpAtMs: () => (stop.aborted ? 0 : giveUpAtMs),
    pause: (ms) => delay(ms, undefined, { signal: stop }).catch(() => {}),
    onFailure: ({ error, failures, retryInMs }) => {
      if (failures > 1 || retryInMs === null) return;
      note(`warning: the last checkpoint is waited for: ${error.message}`);
    },
  });
}

/**
 * How a run is to begin whose output directory is this process's, as its place in a store is then.
 *
 * @param options.output the directory's claim: whoever goes on in another one's place finds what that one had found
 * @throws as `findStart`
 */
export async function findOwnStart(
  config: ResolvedConfig,
  {
    own,
    output: { epoch, store },
    ...waiting
  }: Waiting & { readonly own: OwnProcesses | undefined; readonly output: LeadClaim },
): Promise<RunStart> {
  const isRestart = own?.ports?.control !== undefined;
  const isSuccessor = isRestart || (config.standby && epoch > 1);
  const limitMs = isSuccessor ? config.save_retry_ms : 0;
  // Workers of the one before wait for it.
  const readsAll = !isSuccessor;
  const options = { shardsOutlive: shardsOutlive(config, own), isRestart, readsAll };
  const wait = { ...waiting, limitMs };
  const start = await whileAway(() => findStart(config, options), wait);
  try {
    // A finished run that is started again changes nothing, in a store neither.
    if (!mayBeFinished(start)) {
      const { resume, left } = start;
      const runId = left?.runId ?? resume?.record.runId ?? "";
      await whileAway(() => store.claim(runId), wait);
    }
    return start;
  } catch (error) {
    await start.resume?.optimizer.close();
    throw error;
  }
}
