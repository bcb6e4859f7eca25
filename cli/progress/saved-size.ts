import type { LockstepEvent } from "#lib/core/events";
import { formatBytes } from "#lib/core/format";

/** How much a save is, what of it was there already, and what shards of other processes did not write themselves. */
export function savedSize({
  bytes,
  sharedBytes = 0,
  relayedBytes = 0,
}: Extract<LockstepEvent, { readonly type: "checkpoint.saved" }>): string {
  const shared = sharedBytes === 0 ? "" : `, ${formatBytes(sharedBytes)} of it as before`;
  const relayed =
    relayedBytes === 0 ? "" : `, ${formatBytes(relayedBytes)} through the coordinator`;
  return `${formatBytes(bytes)}${shared}${relayed}`;
}
