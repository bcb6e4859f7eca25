// Shape legend: B rows, T tokens, Q tokens of a part, N query heads, K key/value heads, H head width.
import { type AttentionOptions, attentionAttrs } from "#lib/ops/index";
import { toCompute } from "./autocast.js";
import type { GraphTensor } from "./builder.js";
import { type LaterValue, laterValue } from "./later-value.js";
import { attendFrom } from "./lowerings/attention.js";
import { splitHeads } from "./lowerings/attention-blocks.js";
import * as op from "./tf-ops.js";
import type { Tracer } from "./tracing-backend.js";

/** Neighbouring tokens. */
export interface TokenRange {
  readonly start: number;
  readonly length: number;
}

/** Keys and values of a layer, [B, K, Q, H] for each part. */
interface LayerParts {
  readonly keys: readonly LaterValue[];
  readonly values: readonly LaterValue[];
}

/**
 * Attention of rows whose tokens go through the model in parts, one traced after the other: a part's
 * queries meet the keys and values of all parts, also of those that are traced later.
 */
export class PartedAttention {
  readonly #tracer: Tracer;
  readonly #parts: readonly TokenRange[];
  readonly #segments_BT: GraphTensor;
  readonly #layers = new Map<number, LayerParts>();

  /**
   * @param parts in their order, all tokens
   * @param segments_BT int32, of all tokens
   */
  constructor(tracer: Tracer, parts: readonly TokenRange[], segments_BT: GraphTensor) {
    this.#tracer = tracer;
    this.#parts = parts;
    this.#segments_BT = segments_BT;
  }

  /**
   * To be called once for each part and layer.
   *
   * @param part its number
   * @param qkv [B, Q, N, H], [B, Q, K, H] and [B, Q, K, H] of the part
   * @returns [B, Q, N, H]
   */
  attend(
    part: number,
    layer: number,
    qkv: readonly [GraphTensor, GraphTensor, GraphTensor],
    options: AttentionOptions,
  ): GraphTensor {
    const { autocast } = this.#tracer;
    const computed = qkv.map((x) => toCompute(autocast, x));
    const [q_BNQH, k_BKQH, v_BKQH] = splitHeads(computed) as [
      GraphTensor,
      GraphTensor,
      GraphTensor,
    ];
    const { keys, values } = this.#layer(layer, k_BKQH);
    keys[part]?.give(k_BKQH);
    values[part]?.give(v_BKQH);
    const all = [tokensOf(keys), tokensOf(values)] as const;
    const { start } = this.#parts[part] as TokenRange;
    return attendFrom(autocast, q_BNQH, all, attentionAttrs(options), start, this.#segments_BT);
  }

  #layer(layer: number, { dtype, shape }: GraphTensor): LayerParts {
    const known = this.#layers.get(layer);
    if (known !== undefined) return known;
    const [b, k, , h] = shape as [number, number, number, number];
    const later = (): LaterValue[] =>
      this.#parts.map(({ length }) => laterValue(this.#tracer.graph, dtype, [b, k, length, h]));
    const added = { keys: later(), values: later() };
    this.#layers.set(layer, added);
    return added;
  }
}

const tokensOf = (parts: readonly LaterValue[]): GraphTensor =>
  op.concat(
    parts.map(({ tensor }) => tensor),
    2,
  );
