import type { ConfigReader } from "#lib/models/config-reader";
import type { ModelFacts } from "#lib/models/model-facts";
import { parseDecoderBase } from "./config.js";

/** What Gemma 2 and 3 read alike. */
export function parseGemmaBase(
  config: ConfigReader,
  facts: ModelFacts,
  defaults: {
    readonly attentionSoftcap: number | null;
    readonly logitSoftcap: number | null;
  },
) {
  config.only("use_bidirectional_attention", false);
  const base = parseDecoderBase(config, facts, {
    numKeyValueHeads: 4,
    headDim: 256,
    activationKey: "hidden_activation",
    activation: "gelu_pytorch_tanh",
  });
  const attentionBias = config.boolean("attention_bias", false);
  const softcap = (key: string, fallback: number | null): number | null =>
    config.has(key) ? config.optionalNumber(key) : fallback;
  return {
    ...base,
    normOffset: 1,
    sandwichNorms: true,
    queryKeyValueBias: attentionBias,
    outputBias: attentionBias,
    attentionScale: 1 / Math.sqrt(config.positiveNumber("query_pre_attn_scalar", 256)),
    attentionSoftcap: softcap("attn_logit_softcapping", defaults.attentionSoftcap),
    logitSoftcap: softcap("final_logit_softcapping", defaults.logitSoftcap),
  } as const;
}
