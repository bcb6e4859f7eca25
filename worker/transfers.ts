import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import { shardRanges, wireOffsetBytes } from "#lib/core/parameter-layout";
import { BulkClient } from "#lib/wire/bulk-client";
import { frozenVersion, type PullRequest } from "#lib/wire/bulk-protocol";
import { type ErrorCode, isLockstepError } from "#lib/core/errors/index";
import type { MemberPass } from "#lib/wire/member";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import type { WireSecurity } from "#lib/wire/security";
import { firstBackoffMs, isUnreachable, maxBackoffMs } from "./reachable.js";

/** Attempts at one transfer that a shard refuses, the first included. */
const maxAttempts = 3;
const busyCode = "E_SHARD_BUSY" satisfies ErrorCode;
/** A shard lets a push wait before it says that it is busy, unless too many wait. */
const askAgainMs = 500;
/** How long a shard may be away in the middle of a job; a coordinator that is gone is noticed elsewhere. */
const awayTimeoutMs = 60_000;

/** A shard and its bytes in a buffer that holds the whole trained space. */
interface ShardRange {
  readonly client: BulkClient;
  readonly start: number;
  readonly end: number;
}

/** What is pulled, of which each shard has a part. */
interface PulledRange {
  readonly space: NonNullable<PullRequest["space"]>;
  readonly version: number;
  readonly layout: ParameterLayout;
  readonly range: ElementRange;
}

interface PullOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onRetry: (error: unknown) => void;
}

/** A worker's connections to all reducer shards. Gradients are of the whole space, in wire form. */
export class ShardTransfers {
  readonly #layout: ParameterLayout;
  readonly #shards: readonly ShardRange[];

  constructor(options: {
    readonly layout: ParameterLayout;
    readonly addresses: readonly string[];
    readonly security: WireSecurity;
    readonly pass: MemberPass;
    /** As of BulkClient. */
    readonly sharedMemory?: boolean;
  }) {
    const { sharedMemory = true } = options;
    this.#layout = options.layout;
    const ranges = shardRanges(options.layout, options.addresses.length);
    this.#shards = ranges.map((range, shard) => ({
      client: new BulkClient({
        address: options.addresses[shard] ?? "",
        security: options.security,
        pass: options.pass,
        sharedMemory,
      }),
      start: wireOffsetBytes(options.layout, range.start),
      end: wireOffsetBytes(options.layout, range.end),
    }));
  }

  /** Connects to all shards. @returns address of one that cannot be reached in time, undefined where all can */
  async firstUnreachable(timeoutMs: number, signal: AbortSignal): Promise<string | undefined> {
    const clients = this.#shards.map(({ client }) => client);
    const reached = await Promise.all(clients.map((client) => client.connect(timeoutMs, signal)));
    return clients.find((_, shard) => reached[shard] !== true)?.address;
  }

  /**
   * Fetches a range of a version of what is trained.
   * @param into of the range's size in wire form
   * @throws what BulkClient.pullParameters throws, after some attempts
   */
  async pull(
    version: number,
    range: ElementRange,
    into: Uint8Array,
    options: PullOptions,
  ): Promise<void> {
    await this.#pull({ space: "trained", version, layout: this.#layout, range }, into, options);
  }

  /** The same of the frozen weights. */
  async pullFrozen(
    layout: ParameterLayout,
    range: ElementRange,
    into: Uint8Array,
    options: PullOptions,
  ): Promise<void> {
    await this.#pull({ space: "frozen", version: frozenVersion, layout, range }, into, options);
  }

  async #pull(
    { space, version, layout, range }: PulledRange,
    into: Uint8Array,
    { signal, onRetry }: PullOptions,
  ): Promise<void> {
    const byteOf = (element: number): number => wireOffsetBytes(layout, element);
    const firstByte = byteOf(range.start);
    const parts = shardRanges(layout, this.#shards.length).flatMap((own, shard) => {
      const start = Math.max(own.start, range.start);
      const end = Math.min(own.end, range.end);
      if (start >= end) return [];
      const { client } = this.#shards[shard] as ShardRange;
      return [{ client, start: byteOf(start), end: byteOf(end), offset: byteOf(own.start) }];
    });
    await allOrFirstError(
      parts.map(async ({ client, start, end, offset }) =>
        withRetries(
          async () => {
            const part = { offset: start - offset, numBytes: end - start };
            await client.pullParameters(
              { space, version, part, ...(signal === undefined ? {} : { signal }) },
              into.subarray(start - firstByte, end - firstByte),
            );
          },
          { signal, onRetry },
        ),
      ),
    );
  }

  /** @throws what BulkClient.pushGradients throws, after some attempts */
  async push(
    lease: {
      readonly step: number;
      readonly group: number;
      readonly lease: number;
    },
    wireBytes: Uint8Array,
    options: {
      readonly signal?: AbortSignal | undefined;
      readonly onRetry: (error: unknown) => void;
      readonly onChunk?: ((shard: number, sentBytes: number) => void | Promise<void>) | undefined;
    },
  ): Promise<void> {
    const { signal, onRetry, onChunk } = options;
    await allOrFirstError(
      this.#shards.map(async ({ client, start, end }, shard) =>
        withRetries(
          async () =>
            client.pushGradients(
              {
                ...lease,
                ...(signal === undefined ? {} : { signal }),
                ...(onChunk === undefined
                  ? {}
                  : { onChunk: async (sentBytes: number) => onChunk(shard, sentBytes) }),
              },
              wireBytes.subarray(start, end),
            ),
          { signal, onRetry },
        ),
      ),
    );
  }

  close(): void {
    for (const { client } of this.#shards) client.close();
  }
}

/** Waits for all, so that no transfer still reads or writes the buffer when an error is thrown. */
async function allOrFirstError(transfers: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(transfers);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

/** What a shard answers when the same bytes, sent again, may well be taken. */
const transientRemoteCodes: readonly string[] = [
  "E_FRAME_CORRUPT",
  "E_PUSH_CHUNK",
  "E_PUSH_INCOMPLETE",
  busyCode,
] satisfies ErrorCode[];

export const isTransientRefusal = (error: unknown): boolean =>
  transientRemoteCodes.includes(remoteErrorCode(error));

/**
 * Repeats a transfer: at once where the bytes were refused, for a while where the shard is not there. A shard that
 * has no place for a group, because groups before it are late, is asked again for as long as it takes: it says so
 * itself when the lease counts no longer.
 */
async function withRetries<T>(
  transfer: () => Promise<T>,
  { signal, onRetry }: PullOptions,
): Promise<T> {
  let since = awakeMs();
  let backoffMs = firstBackoffMs;
  for (let attempt = 1; ; ) {
    try {
      return await transfer();
    } catch (error) {
      const isBusy = remoteErrorCode(error) === busyCode;
      const isAway = isUnreachable(error) && awakeMs() - since < awayTimeoutMs;
      const isRefused =
        !isUnreachable(error) &&
        ((isLockstepError(error) && error.retryable) || isTransientRefusal(error)) &&
        attempt < maxAttempts;
      if (signal?.aborted === true || !(isBusy || isAway || isRefused)) throw error;
      onRetry(error);
      if (isBusy) {
        since = awakeMs();
        await delay(askAgainMs, undefined, { signal }).catch(() => {});
      } else if (isAway) {
        await delay(backoffMs, undefined, { signal }).catch(() => {});
        backoffMs = Math.min(backoffMs * 2, maxBackoffMs);
      } else attempt += 1;
    }
  }
}
