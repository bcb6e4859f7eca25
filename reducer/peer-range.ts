import { copyError, pulled } from "#coordinator/reducer/peer-copies";
import { RemoteArray } from "#coordinator/reducer/remote-array";
import type { ElementRange } from "#lib/core/parameter-layout";
import type { SavedArray } from "#lib/core/saved-files";
import type { DistantArray } from "#lib/core/shard-arrays";
import { BulkClient } from "#lib/wire/bulk-client";
import type { ShardPeer } from "#lib/wire/reducer-messages";
import type { WireSecurity } from "#lib/wire/security";

interface PeerRangeOptions {
  readonly peer: ShardPeer;
  readonly range: ElementRange;
  readonly security: WireSecurity;
  /** Of the shard that fetches. */
  readonly shardIndex: number;
  /** Updates that both have had. */
  readonly version: number;
}

/** The range of another shard, of which parts are fetched. */
export class PeerRange {
  readonly range: ElementRange;
  readonly #options: PeerRangeOptions;
  readonly #client: BulkClient;

  constructor(options: PeerRangeOptions) {
    this.range = options.range;
    this.#options = options;
    const { address, name: workerId, ...shown } = options.peer;
    const { security } = options;
    this.#client = new BulkClient({ address, security, pass: { ...shown, workerId } });
  }

  /** Elements of the space, fetched a piece at a time. Reading them @throws E_SHARD_COPY */
  elements(array: SavedArray, start: number, end: number): DistantArray {
    const read = async (offset: number, numBytes: number): Promise<Uint8Array> => {
      const bytes = new Uint8Array(numBytes);
      const { version, shardIndex, peer } = this.#options;
      try {
        const request = { space: array, version, part: { offset, numBytes } };
        await pulled(this.#client, request, bytes);
      } catch (cause) {
        throw copyError(shardIndex, peer.address, cause);
      }
      return bytes;
    };
    return new RemoteArray(read, start - this.range.start, end - start);
  }

  close(): void {
    this.#client.close();
  }
}
