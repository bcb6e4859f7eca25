import { ConfigReader } from "#lib/models/config-reader";
import { decoderModel } from "#lib/models/heads";
import type { CreateModel } from "#lib/models/model";
import { parseGpt2Config } from "./config.js";
import { gpt2HiddenStates } from "./forward.js";
import { gpt2 } from "./facts.js";
import { gpt2Weights, head } from "./weights.js";

export const createGpt2: CreateModel = (json, task) => {
  const config = parseGpt2Config(json);
  return decoderModel(
    {
      modelType: gpt2.modelType,
      vocabSize: config.vocabSize,
      maxPositions: config.maxPositions,
      weights: gpt2Weights(config),
      basePrefix: gpt2.basePrefix,
      hiddenStates: (weights, inputs) => gpt2HiddenStates(config, weights, inputs),
    },
    task,
    {
      hiddenSize: config.hiddenSize,
      projectionName: config.tieWordEmbeddings ? gpt2.tokenEmbedding : head,
      logitSoftcap: null,
      scoreName: `${gpt2.classifier.output}.weight`,
      padTokenId: config.padTokenId,
      config: new ConfigReader(gpt2.modelType, json),
    },
  );
};
