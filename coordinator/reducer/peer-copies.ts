import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { SavedArray } from "#lib/core/saved-files";
import type { ShardArrays } from "#lib/core/shard-arrays";
import { emaSlot } from "#lib/optim/index";
import { BulkClient } from "#lib/wire/bulk-client";
import { frozenVersion, type PullRequest } from "#lib/wire/bulk-protocol";
import type { PullSource } from "#lib/wire/bulk-server";
import type { MemberPass } from "#lib/wire/member";
import {
  isPeerName,
  peerName,
  type ShardCommand,
  type ShardPeer,
} from "#lib/wire/reducer-messages";
import type { WireSecurity } from "#lib/wire/security";
import type { PublishedVersions } from "./published-versions.js";
import type { ShardReducer } from "./shard-reducer.js";

/** At one transfer from another shard, the first included. */
const maxAttempts = 3;
const pauseMs = 200;

/** What only shards ask each other for. */
type PeerSpace = Exclude<NonNullable<PullRequest["space"]>, "trained" | "frozen">;

/** @returns undefined where the shard keeps no such array */
export const savedArray = (
  { masters, states }: ShardArrays,
  array: SavedArray,
): Float32Array | undefined => (array === "masters" ? masters : states[emaSlot]);

type Command<Kind extends ShardCommand["kind"]> = Extract<ShardCommand, { readonly kind: Kind }>;

interface PeerCopiesOptions {
  readonly shardIndex: number;
  readonly reducer: ShardReducer;
  readonly frozen: PublishedVersions;
  readonly security: WireSecurity;
}

/** What shards give each other: those of the same range gradients summed and all that they keep, others what they save. */
export class PeerCopies {
  readonly #options: PeerCopiesOptions;

  constructor(options: PeerCopiesOptions) {
    this.#options = options;
  }

  /** What a peer asks for. @throws E_UNKNOWN_WORKER for a worker, E_VERSION_NOT_PUBLISHED, E_SHARD_STATE */
  serve(space: PeerSpace, version: number, { workerId }: MemberPass): PullSource {
    const { reducer, shardIndex } = this.#options;
    const isOfRange = space === "kept" || space === "sum";
    if (isOfRange ? workerId !== peerName(shardIndex) : !isPeerName(workerId)) {
      throw new LockstepError("E_UNKNOWN_WORKER", { worker: workerId });
    }
    const isThere = (): boolean =>
      space === "sum"
        ? reducer.hasSum(version)
        : space === "kept"
          ? reducer.keeps(version)
          : reducer.hasUpdates(version);
    const beforeChunk = (): void => {
      if (isThere()) return;
      const { versions: published } = reducer.published;
      throw new LockstepError("E_VERSION_NOT_PUBLISHED", { version, published });
    };
    beforeChunk();
    return { bytes: this.#bytesOf(space), beforeChunk };
  }

  #bytesOf(space: PeerSpace): Uint8Array {
    const { reducer, shardIndex } = this.#options;
    const { arithmetic } = reducer;
    if (space === "sum") return arithmetic.sumBytes;
    if (space === "kept") return arithmetic.keptBytes;
    const array = savedArray(arithmetic, space);
    if (array !== undefined) {
      return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    }
    throw new LockstepError("E_SHARD_STATE", {
      ...{ shardIndex, call: `give away its ${space}` },
      ...{ expected: "such an array", got: "none" },
    });
  }

  /** @returns as `reduce`. @throws E_SHARD_COPY, E_SHARD_STATE */
  async takeSum({ step, peer }: Command<"takeSum">): Promise<Float64Array> {
    const { reducer } = this.#options;
    const wanted: PullRequest = { space: "sum", version: step };
    if (reducer.awaitsSum(step)) await this.#pull(peer, [[wanted, reducer.arithmetic.sumBytes]]);
    return reducer.sumTaken(step);
  }

  /** @throws E_SHARD_COPY, E_SHARD_STATE */
  async takeState({ status, peer }: Command<"takeState">): Promise<void> {
    const { reducer, frozen } = this.#options;
    const { version = 0 } = status;
    reducer.startOver();
    const wanted: [PullRequest, Uint8Array][] = [
      [{ space: "kept", version }, reducer.arithmetic.keptBytes],
    ];
    if (frozen.versions.length > 0) {
      wanted.push([{ space: "frozen", version: frozenVersion }, frozen.get(frozenVersion).bytes]);
    }
    await this.#pull(peer, wanted);
    reducer.stateTaken(status);
  }

  async #pull(
    { address, name: workerId, ...shown }: ShardPeer,
    wanted: readonly (readonly [PullRequest, Uint8Array])[],
  ): Promise<void> {
    const { security, shardIndex } = this.#options;
    const client = new BulkClient({ address, security, pass: { ...shown, workerId } });
    try {
      for (const [request, into] of wanted) await pulled(client, request, into);
    } catch (cause) {
      throw copyError(shardIndex, address, cause);
    } finally {
      client.close();
    }
  }
}

export function copyError(shardIndex: number, address: string, cause: unknown): LockstepError {
  const reason = (cause instanceof Error ? cause.message : String(cause)).replace(/\.$/, "");
  return new LockstepError("E_SHARD_COPY", { shardIndex, address, reason }, { cause });
}

/** A transfer is made again where its bytes were broken or its connection was. */
export async function pulled(
  client: BulkClient,
  request: PullRequest,
  into: Uint8Array,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await client.pullParameters(request, into);
      return;
    } catch (error) {
      if (!isLockstepError(error) || !error.retryable || attempt === maxAttempts) throw error;
    }
    await delay(pauseMs);
  }
}
