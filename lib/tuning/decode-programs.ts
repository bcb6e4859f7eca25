// Shape legend: B batch, Q new tokens of a row, M = B*Q, D model width, V vocabulary.
import * as tf from "@tensorflow/tfjs-core";
import type { GraphTensor } from "#lib/graph/builder";
import { KeyValueCache } from "#lib/graph/key-value-cache";
import "#lib/graph/lowerings/index";
import type { Program } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace, type Tracer } from "#lib/graph/tracing-backend";
import type { CausalLanguageModel, Weights } from "#lib/models/index";
import { capLogits } from "#lib/ops/index";

interface DecodeShape {
  readonly batchSize: number;
  /** Longest prompt plus continuation, tokens. */
  readonly maxLength: number;
  /** Tokens of a prompt that one call takes. */
  readonly chunkLength: number;
}

/**
 * Tokens of a prompt that one call takes where nothing else is asked for: enough for matrix products
 * at full speed, few enough that a short prompt wastes little.
 */
export const promptChunkLength = 32;

/** One traced forward pass over new tokens; its two programs differ in what they fetch. */
export interface ForwardPrograms {
  /** Q, new tokens of a row. */
  readonly numTokens: number;
  /** The most probable token after each row's last one, int32 [B]. */
  readonly token: Program;
  /** The scores of the next token, float32 [B, V]. */
  readonly logits: Program;
}

/** Programs that continue rows over a cache of keys and values. */
export interface DecodePrograms {
  readonly shape: DecodeShape;
  /** Ids before the tokens of every row, which are no part of `maxLength`. */
  readonly prefix: Int32Array;
  /** The slot that padding writes to. */
  readonly paddingSlot: number;
  /** Makes the cache's variables; runs once, before the others. */
  readonly init: Program;
  readonly chunk: ForwardPrograms;
  readonly step: ForwardPrograms;
}

/**
 * Rotary types whose frequencies depend on the length of the text (dynamic, longrope) take those of
 * `maxLength` for every token.
 *
 * @param weightsOf gives the model's weights as tensors of the tracer's graph; called while tracing
 */
export function buildDecodePrograms(
  tracer: Tracer,
  model: CausalLanguageModel,
  weightsOf: () => Weights,
  shape: DecodeShape,
): DecodePrograms {
  const { prefix = new Int32Array(0) } = model;
  const maxLength = prefix.length + shape.maxLength;
  const cache = new KeyValueCache(tracer, shape.batchSize, maxLength);
  const forward = (of: Tracer, name: string, numTokens: number): ForwardPrograms =>
    forwardPrograms(of, cache, model, weightsOf, { ...shape, maxLength, name, numTokens });
  // Every program that packs the weights keeps a copy of its own, and a prompt runs once.
  const chunk = forward({ ...tracer, packsWeights: false }, "chunk", shape.chunkLength);
  const step = forward(tracer, "step", 1);
  return { shape, prefix, paddingSlot: cache.paddingSlot, init: cache.initProgram(), chunk, step };
}

function forwardPrograms(
  tracer: Tracer,
  cache: KeyValueCache,
  model: CausalLanguageModel,
  weightsOf: () => Weights,
  call: DecodeShape & { readonly name: string; readonly numTokens: number },
): ForwardPrograms {
  const { name, batchSize: b, numTokens: q } = call;
  const feed = (what: string, shape: readonly number[]): GraphTensor =>
    op.placeholder(tracer.graph, `feed/decode/${name}/${what}`, "int32", shape);
  const feeds = {
    tokens: feed("tokens", [b, q]),
    positions: feed("positions", [b, q]),
    slots: feed("slots", [b, q]),
    /** Index of each row's last real token among the M. */
    last: feed("last", [b]),
  };
  const cached = { positions_BQ: feeds.positions, slots_BQ: feeds.slots };
  const fetches = trace(tracer, () => {
    const weights = weightsOf();
    const hidden_BQD = model.hiddenStates(weights, {
      tokens: symbolicTensor(feeds.tokens) as tf.Tensor2D,
      positions: symbolicTensor(feeds.positions) as tf.Tensor2D,
      sequenceLength: call.maxLength,
      attention: (layer, q_BQNH, k_BQKH, v_BQKH, options) => {
        const qkv = [graphTensor(q_BQNH), graphTensor(k_BQKH), graphTensor(v_BQKH)] as const;
        return symbolicTensor(cache.attend(layer, cached, qkv, options));
      },
    });
    const hidden_MD = tf.reshape(hidden_BQD, [b * q, hidden_BQD.shape[2]]);
    const rows_BD = tf.gather(hidden_MD, symbolicTensor(feeds.last) as tf.Tensor1D);
    const projected_BV = tf.matMul(rows_BD, model.outputProjection(weights), false, true);
    const logits_BV = capLogits(projected_BV, model.logitSoftcap);
    return {
      token: graphTensor(tf.argMax(logits_BV, 1)),
      logits: op.cast(graphTensor(logits_BV), "float32"),
    };
  });
  const program = (what: "token" | "logits"): Program => ({
    name: `${name}/${what}`,
    feeds,
    fetches: {
      [what]: op.identity(fetches[what], { name: `fetch/decode/${name}/${what}` }),
    },
  });
  return { numTokens: q, token: program("token"), logits: program("logits") };
}
