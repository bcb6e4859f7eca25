import {
  type ElementRange,
  type ParameterLayout,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import type { StartShardOptions } from "./shards.js";

/** A shard's part of the weights that stay as they are. @param wireBytes all of them, on shared memory */
export const frozenOf = (
  {
    layout,
    wireBytes,
  }: { readonly layout: ParameterLayout; readonly wireBytes: () => Promise<Uint8Array> },
  { start, end }: ElementRange,
): NonNullable<StartShardOptions["frozen"]> => ({
  layout,
  wireRange: async () =>
    (await wireBytes()).subarray(wireOffsetBytes(layout, start), wireOffsetBytes(layout, end)),
});
