import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import type { ElementRange } from "#lib/core/parameter-layout";
import { openSafetensors, type SafetensorsFile } from "./safetensors-file.js";
import { writeTensors } from "./tensor-store.js";

/** AdamW's state over one contiguous range of the flat parameter space; arrays are range-local. */
export interface OptimizerShardState {
  readonly range: ElementRange;
  readonly masters: Float32Array;
  readonly firstMoment: Float32Array;
  readonly secondMoment: Float32Array;
}

export type OptimizerTensor = "masters" | "first_moment" | "second_moment";

const format = "lockstep-optimizer-1";
const fileName = (shard: number, numShards: number): string =>
  `optimizer-${String(shard + 1).padStart(5, "0")}-of-${String(numShards).padStart(5, "0")}.safetensors`;

/** Writes one file a shard into the existing `directory`. */
export async function writeOptimizerState(
  directory: string,
  shards: readonly OptimizerShardState[],
): Promise<void> {
  for (const [i, shard] of shards.entries()) {
    const shape = [shard.range.end - shard.range.start];
    await writeTensors(
      join(directory, fileName(i, shards.length)),
      [
        { name: "masters", shape, data: shard.masters },
        { name: "first_moment", shape, data: shard.firstMoment },
        { name: "second_moment", shape, data: shard.secondMoment },
      ],
      { format, start: String(shard.range.start), end: String(shard.range.end) },
    );
  }
}

/**
 * Reads any range of a stored optimizer state, so that a run may resume with another number of
 * reducer shards than it had.
 */
export class OptimizerStateReader {
  /** Elements of the flat space. */
  readonly numElements: number;
  readonly #shards: readonly { readonly file: SafetensorsFile; readonly range: ElementRange }[];

  private constructor(
    shards: readonly { readonly file: SafetensorsFile; readonly range: ElementRange }[],
  ) {
    this.#shards = shards;
    this.numElements = shards.at(-1)?.range.end ?? 0;
  }

  static async open(directory: string): Promise<OptimizerStateReader> {
    const fail = (file: string, problem: string): never => {
      throw new LockstepError("E_CHECKPOINT_DAMAGED", { directory, file, problem });
    };
    const names = (await readdir(directory)).filter((name) =>
      /^optimizer-\d{5}-of-\d{5}\.safetensors$/.test(name),
    );
    names.sort();
    if (names.length === 0) fail("optimizer-*.safetensors", "is missing");
    const shards: { file: SafetensorsFile; range: ElementRange }[] = [];
    try {
      for (const [i, name] of names.entries()) {
        if (name !== fileName(i, names.length))
          fail(name, `is not part ${i + 1} of ${names.length}`);
        const file = await openSafetensors(join(directory, name));
        const range = { start: Number(file.metadata["start"]), end: Number(file.metadata["end"]) };
        shards.push({ file, range });
        if (file.metadata["format"] !== format) fail(name, `is not of format ${format}`);
        if (range.start !== (shards[i - 1]?.range.end ?? 0) || !(range.end >= range.start)) {
          fail(name, "does not continue the shard before it");
        }
        for (const tensor of ["masters", "first_moment", "second_moment"]) {
          if (file.tensors.get(tensor)?.numElements !== range.end - range.start) {
            fail(name, `has no ${tensor} of its range`);
          }
        }
      }
    } catch (error) {
      for (const { file } of shards) await file.close();
      throw error;
    }
    return new OptimizerStateReader(shards);
  }

  /** Fills `into` (at least the range's length) with the elements `range` of the flat space. */
  async readRange(tensor: OptimizerTensor, range: ElementRange, into: Float32Array): Promise<void> {
    for (const { file, range: stored } of this.#shards) {
      const start = Math.max(range.start, stored.start);
      const end = Math.min(range.end, stored.end);
      if (start >= end) continue;
      await file.readFloat32(tensor, into.subarray(start - range.start), {
        start: start - stored.start,
        count: end - start,
      });
    }
  }

  async close(): Promise<void> {
    for (const { file } of this.#shards) await file.close();
  }
}
