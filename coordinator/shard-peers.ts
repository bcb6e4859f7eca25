import { randomBytes } from "node:crypto";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import type { SavedTensors, ShardFileWriter } from "#lib/core/saved-files";
import { peerName, type RangePeer } from "#lib/wire/reducer-messages";
import type { RunLife } from "./reducer/fence.js";
import type { KeptFiles } from "./kept-elsewhere.js";
import type { ShardHandle } from "./shards.js";

interface ShardPeersParts {
  readonly layout: ParameterLayout;
  readonly life: RunLife;
  readonly shards: readonly Pick<ShardHandle, "address" | "changeFence">[];
  readonly rangeOf: (shard: number) => ElementRange;
}

/** Lets shards that save tensors fetch what lies in the ranges of others. */
export class ShardPeers {
  readonly #parts: ShardPeersParts;
  /** What they show each other. */
  readonly #secret = randomBytes(16).toString("hex");

  constructor(parts: ShardPeersParts) {
    this.#parts = parts;
  }

  /** Files of a shard, with what others keep of its tensors. */
  writerOf(shard: number, files: KeptFiles): ShardFileWriter {
    return {
      saveState: async (place) => files.saveState(place),
      saveTensors: async (place, content) =>
        files.saveTensors(place, content, () => this.#peersOf(shard, content)),
    };
  }

  async #peersOf(shard: number, { tensors }: SavedTensors): Promise<readonly RangePeer[]> {
    const { layout, life, shards, rangeOf } = this.#parts;
    const ends = tensors.map(({ tensor }) => {
      const { offset = 0, size = 0 } = layout.tensors[tensor] ?? {};
      return offset + size;
    });
    const end = Math.max(0, ...ends);
    const name = peerName(shard);
    const secret = this.#secret;
    const admitted = shards.map(async (handle, shardIndex): Promise<readonly RangePeer[]> => {
      const range = rangeOf(shardIndex);
      if (shardIndex <= shard || range.start >= end || range.start === range.end) return [];
      await handle.changeFence({ kind: "admit", workerId: name, secret });
      return [{ shardIndex, peer: { address: handle.address, ...life, name, secret } }];
    });
    return (await Promise.all(admitted)).flat();
  }
}
