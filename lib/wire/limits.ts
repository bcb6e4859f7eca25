/** Limits and periods of the wire, with their reasons. */

/** 8 MiB keeps 1 MiB chunks flowing at 10 ms of latency (97 MB/s a stream against 3 MB/s at 64 KiB). */
export const channelWindowBytes = 8 * 1024 * 1024;
/** A job (layout of thousands of tensors) or a lease (token batches of a group) is far below it. */
export const maxControlMessageBytes = 32 * 1024 * 1024;
/** Of a job as JSON: a layout of thousands of tensors takes some MB. */
export const maxJobChars = 16 * 1024 * 1024;
/** Batches of one lease. */
export const maxTaskBatches = 65_536;
/** Tokens of a prompt, and of its continuation. */
export const maxTokenIds = 1_000_000;
/** Found dead within half a minute even where no packet comes back; heartbeats are faster. */
export const keepaliveTimeMs = 20_000;
export const keepaliveTimeoutMs = 10_000;
/** Chunks of one stream that may be on their way: bounds the copies in memory to a few MiB. */
export const maxChunksInFlight = 4;
/** Messages of a stream that are there before their reader asks for them. */
export const maxUnreadMessages = 4;
/** Bytes of a stream that may be there unread: in the window, and as messages of a mebibyte. */
export const maxUnreadBytes = channelWindowBytes + maxUnreadMessages * 1024 * 1024;
/** A bulk transfer that moves nothing for this long has failed. */
export const bulkStallTimeoutMs = 30_000;
/** A control call that is not a long poll. */
export const controlTimeoutMs = 10_000;
/** Longest text of an error that travels, characters; HTTP/2 headers are limited. */
export const maxReasonChars = 2_000;
/** A message of which nothing more came for this long, while it was waited for, is given up. */
export const messageIdleMs = 30_000;
