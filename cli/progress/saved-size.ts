import type { LockstepEvent } from "#lib/core/events";
import { formatBytes } from "#lib/core/format";

/** How much a save is, and what of it was there already. */
export function savedSize({
  bytes,
  sharedBytes = 0,
}: Extract<LockstepEvent, { readonly type: "checkpoint.saved" }>): string {
  const shared = sharedBytes === 0 ? "" : `, ${formatBytes(sharedBytes)} of it as before`;
  return `${formatBytes(bytes)}${shared}`;
}
