import type { Region } from "#lib/core/parameter-layout";
import type { RegionUpdate } from "./optimizers/kind.js";

/** An update of a flat space by the summed gradient. */
export interface Update {
  readonly learningRate: number;
  /** 1 for the first update. */
  readonly updateNumber: number;
  /** Multiplies the summed gradient. */
  readonly gradientScale: number;
  /** By tensor: what the optimizer's statistics came to, where it has some; float32, on shared memory. */
  readonly given?: readonly Float32Array[];
}

/** What an update is for a region; undefined before the region's first one. */
export function updateOfRegion(update: Update, region: Region): RegionUpdate | undefined {
  const updateNumber = update.updateNumber - region.firstUpdate + 1;
  if (updateNumber < 1) return undefined;
  return {
    learningRate: update.learningRate * region.rateMultiplier,
    updateNumber,
    gradientScale: update.gradientScale,
    decays: region.decays,
  };
}
