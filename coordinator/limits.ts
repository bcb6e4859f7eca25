/** A long poll is answered after this long at the latest, so that dead connections show. */
export const maxWaitForTaskMs = 30_000;
export const defaultHeartbeatIntervalMs = 2_000;
/** Five heartbeats: a machine under full load misses one or two. */
export const defaultHeartbeatTimeoutMs = 10_000;
/** A worker that lives but does not come back with a group: far beyond any honest group. */
export const defaultLeaseTimeoutMs = 600_000;
/**
 * Workers hear that the job is over, and leave; members that do not are not waited for longer, from when their next
 * heartbeat is due on, nor those that live and are about to register.
 */
export const farewellTimeoutMs = {
  ...{ members: 2_000, strays: 5_000 },
  /** One that was told by its heartbeat, and computes: its connections stay until it has read that. */
  told: 500,
  /** Those of a coordinator that died or was stopped, who call it until a call's deadline and then look for another. */
  ofAnother: 20_000,
} as const;
/** Who is kept out for a while asks again this often at least: the run may end meanwhile. */
export const maxAskAgainAfterMs = 1_000;
/** What a worker reported has been sent before: the shards tell of it within a moment. */
export const defaultBytesAfterReportMs = 5_000;
