import { ConfigReader } from "#lib/models/config-reader";
import { decoderModel } from "#lib/models/heads";
import type { Model, Task } from "#lib/models/model";
import type { DecoderConfig } from "./config.js";
import { decoderHiddenStates } from "./forward.js";
import { basePrefix, scoreModule, tokenEmbedding } from "./facts.js";
import { decoderWeights } from "./weights.js";

/** A model of Llama's family from its configuration. */
export function createDecoder(
  config: DecoderConfig,
  json: Readonly<Record<string, unknown>>,
  task: Task,
): Model {
  return decoderModel(
    {
      modelType: config.modelType,
      vocabSize: config.vocabSize,
      maxPositions: config.maxPositions,
      weights: decoderWeights(config),
      basePrefix,
      hiddenStates: (weights, inputs) => decoderHiddenStates(config, weights, inputs),
    },
    task,
    {
      hiddenSize: config.hiddenSize,
      projectionName: config.tieWordEmbeddings ? tokenEmbedding : "lm_head.weight",
      logitSoftcap: config.logitSoftcap,
      scoreName: `${scoreModule}.weight`,
      padTokenId: config.padTokenId,
      config: new ConfigReader(config.modelType, json),
    },
  );
}
