import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ModelWeights } from "#lib/checkpoint/index";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import type { Batch } from "#lib/core/batch";
import {
  buildParameterLayout,
  type ElementRange,
  type ParameterLayout,
} from "#lib/core/parameter-layout";
import { currentWeightName } from "#lib/models/facts";
import { createModel, resolveWeights } from "#lib/models/index";
import { readTokens } from "./tokens.js";

type LoadRange = (range: ElementRange, into: Float32Array) => Promise<void>;

/** What bench/peers/make_model.py wrote: a causal language model and tokens. */
export interface SeededModel {
  readonly modelConfig: Readonly<Record<string, unknown>>;
  readonly layout: ParameterLayout;
  /** Fills `into` with the weights of a range of the flat space, float32. */
  readonly loadMasters: LoadRange;
  /** The same for another layout of these weights. */
  readonly loaderOf: (layout: ParameterLayout) => LoadRange;
  /** `numRows` rows of the file's tokens from row `firstRow` on; the last token of a row predicts nothing. */
  readonly batch: (numRows: number, length: number, firstRow?: number) => Batch;
}

export function openSeededModel(directory: string, precision: Precision): SeededModel {
  const configText = readFileSync(join(directory, "config.json"), "utf8");
  const modelConfig = JSON.parse(configText) as Record<string, unknown>;
  const model = createModel(modelConfig, { task: "causal-lm" });
  const layout = buildParameterLayout(model.weights, computeDtypes[precision]);
  const allTokens = readTokens(directory);
  const loaderOf =
    (space: ParameterLayout): LoadRange =>
    async (range, into) => {
      const weights = await ModelWeights.open(directory, currentWeightName);
      const found = weights.names().map((name) => ({ name, shape: weights.info(name).shape }));
      const stored = resolveWeights(model, found);
      for (const { name, offset, size } of space.tensors) {
        const start = Math.max(range.start, offset);
        const end = Math.min(range.end, offset + size);
        if (start >= end) continue;
        const part = into.subarray(start - range.start, end - range.start);
        await weights.readFloat32(stored.get(name) ?? name, part, {
          start: start - offset,
          count: end - start,
        });
      }
      await weights.close();
    };
  return {
    modelConfig,
    layout,
    loadMasters: loaderOf(layout),
    loaderOf,
    batch: (numRows, length, firstRow = 0) => {
      const tokens = allTokens.slice(firstRow * length, (firstRow + numRows) * length);
      if (tokens.length !== numRows * length) throw new RangeError("the file has too few tokens");
      const targets = Int32Array.from(tokens, (_, i) =>
        i % length === length - 1 ? -100 : (tokens[i + 1] as number),
      );
      return { numRows, fields: { tokens, targets } };
    },
  };
}
