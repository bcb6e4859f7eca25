/** A long poll is answered after this long at the latest, so that dead connections show. */
export const maxWaitForTaskMs = 30_000;
export const defaultHeartbeatIntervalMs = 2_000;
/** Five heartbeats: a machine under full load misses one or two. */
export const defaultHeartbeatTimeoutMs = 10_000;
/** A worker that lives but does not come back with a group: far beyond any honest group. */
export const defaultLeaseTimeoutMs = 600_000;
/** Workers hear that the job is over, and leave; those that do not are not waited for longer. */
export const farewellTimeoutMs = 2_000;
/** What a worker reported has been sent before: the shards tell of it within a moment. */
export const defaultBytesAfterReportMs = 5_000;
