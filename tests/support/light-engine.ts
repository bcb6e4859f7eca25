import type { CreateTrainingEngine, EvaluatedBatch, TrainingEngine } from "#lib/core/job";
import { ignoredTarget } from "#lib/core/batch";
import { wireOffsetBytes } from "#lib/core/parameter-layout";

/**
 * An engine that keeps no weights and computes no gradient: one that depends on the batch alone is written, in the time
 * that memory takes. For runs that measure what everything but the engine needs.
 */
const createLightEngine: CreateTrainingEngine = async ({ layout }): Promise<TrainingEngine> => {
  const lossOf = (batch: Parameters<TrainingEngine["evaluate"]>[0]): EvaluatedBatch => {
    const { targets = [] } = batch.fields;
    let weight = 0;
    for (const target of targets) if (target !== ignoredTarget) weight += 1;
    return { lossSum: weight, weight };
  };
  return {
    loadParameters: () => {},
    accumulate: (batch, _scale, _first, wireBytes) => {
      if (wireBytes !== undefined) {
        const { tokens = [] } = batch.fields;
        let seed = 1;
        for (const token of tokens) seed = (Math.imul(seed, 31) + token) >>> 0;
        for (const { start, end, dtype } of layout.regions) {
          const place = wireBytes.byteOffset + wireOffsetBytes(layout, start);
          // Between 2^-14 and 2^-12, of either type.
          if (dtype === "float32") {
            new Float32Array(wireBytes.buffer, place, end - start).fill(
              2 ** -14 * (1 + (seed % 3)),
            );
          } else {
            const words = new Uint16Array(wireBytes.buffer, place, end - start);
            words.fill(0x3880 + (seed % 0x80));
          }
        }
      }
      return lossOf(batch);
    },
    evaluate: lossOf,
    generate: (_prompt, maxNewTokens) => new Int32Array(maxNewTokens),
    close: () => {},
  };
};

export default createLightEngine;
