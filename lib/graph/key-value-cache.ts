// Shape legend: B batch, Q new tokens of a row, N query heads, K key/value heads, G = N/K, H head
// width, S slots of a row.
import { LockstepError } from "#lib/core/errors/index";
import { type AttentionOptions, hiddenScore } from "#lib/ops/index";
import { toCompute } from "./autocast.js";
import { loadBinding } from "./binding.js";
import type { GraphNode, GraphTensor } from "./builder.js";
import type { Program } from "./session.js";
import * as op from "./tf-ops.js";
import type { Tracer } from "./tracing-backend.js";
import {
  assign,
  deepCopy,
  readVariable,
  scatterUpdate,
  updateInPlace,
  type Variable,
  variable,
} from "./variables.js";
import { xlaTensor } from "./xla-function.js";

/** Where the new tokens of a call stand; int32 [B, Q] each. */
interface CachedTokens {
  readonly positions_BQ: GraphTensor;
  /** The positions, or `paddingSlot`. */
  readonly slots_BQ: GraphTensor;
}

interface Layer {
  readonly keys: Variable;
  readonly values: Variable;
}

/**
 * Keys and values of every layer in variables of the session, so that a step computes its new tokens
 * only. A row's token at position p lies in slot p whatever the other rows do, so rows of different
 * lengths need no padding. One slot more takes what padding of a call writes; no query sees it.
 */
export class KeyValueCache {
  readonly #tracer: Tracer;
  readonly #batchSize: number;
  readonly #numSlots: number;
  readonly #isInPlace = !loadBinding().isUsingGpuDevice();
  readonly #layers = new Map<number, Layer>();

  /** @param maxLength longest row, tokens */
  constructor(tracer: Tracer, batchSize: number, maxLength: number) {
    this.#tracer = tracer;
    this.#batchSize = batchSize;
    this.#numSlots = maxLength + 1;
  }

  /** The slot that padding writes to. */
  get paddingSlot(): number {
    return this.#numSlots - 1;
  }

  /**
   * Causal attention of one layer: writes the new keys and values, then attends to all that each row
   * has so far.
   *
   * @param qkv [B, Q, N, H], [B, Q, K, H] and [B, Q, K, H] of the new tokens
   * @returns [B, Q, N, H]
   */
  attend(
    layer: number,
    { positions_BQ, slots_BQ }: CachedTokens,
    qkv: readonly [GraphTensor, GraphTensor, GraphTensor],
    { scale, causal, window, softcap }: AttentionOptions,
  ): GraphTensor {
    if (!causal) {
      throw new LockstepError("E_MODEL_UNSUPPORTED", {
        what: "generation with a model whose tokens see later ones",
      });
    }
    const { graph, autocast } = this.#tracer;
    const [q_BQNH, k_BQKH, v_BQKH] = qkv.map((x) => toCompute(autocast, x)) as [
      GraphTensor,
      GraphTensor,
      GraphTensor,
    ];
    const [b, q, n, h] = q_BQNH.shape as [number, number, number, number];
    const k = k_BQKH.shape[2] as number;
    const { keys, values } = this.#layer(layer, k, h);
    const rows = this.#rowsOf(slots_BQ, k);
    const keys_BKSH = this.#write(keys, rows, k_BQKH);
    const values_BKSH = this.#write(values, rows, v_BQKH);
    const s = this.#numSlots;
    const mask_BQS = this.#mask(positions_BQ, window ?? 0);
    if (q === 1) {
      const q_BKGH = op.reshape(q_BQNH, [b, k, n / k, h]);
      const mask_BS = op.reshape(mask_BQS, [b, s]);
      const operands = [q_BKGH, keys_BKSH, values_BKSH, mask_BS];
      const body = (args: readonly GraphTensor[]): GraphTensor => attendOne(args, scale, softcap);
      return op.reshape(xlaTensor(graph, "CachedAttention", operands, body), [b, 1, n, h]);
    }
    const queries = op.reshape(op.transpose(q_BQNH, [0, 2, 1, 3]), [b, k, (n / k) * q, h]);
    const products = op.matMul(queries, keys_BKSH, false, true);
    const scores = softcapped(
      op.mul(op.cast(products, "float32"), op.scalar(graph, scale)),
      softcap ?? 0,
    );
    const masked = op.add(
      op.reshape(scores, [b, k, n / k, q, s]),
      op.reshape(mask_BQS, [b, 1, 1, q, s]),
    );
    const probs = op.softmax(op.reshape(masked, [b, k, (n / k) * q, s]));
    const mixed = op.matMul(op.cast(probs, values_BKSH.dtype), values_BKSH, false, false);
    return op.transpose(op.reshape(mixed, [b, n, q, h]), [0, 2, 1, 3]);
  }

  /** Fills the variables that the traced programs use; run it once, before them. */
  initProgram(): Program {
    const { graph } = this.#tracer;
    const assigns: GraphNode[] = [...this.#layers.values()]
      .flatMap(({ keys, values }) => [keys, values])
      // Memory of its own for each, since it is written in place.
      .map((v) => assign(v, deepCopy(op.fill(op.scalar(graph, 0, v.dtype), v.shape))));
    const done = op.identity(op.intScalar(graph, 1), {
      name: "fetch/cache/init",
      controlInputs: assigns,
    });
    return { name: "initCache", feeds: {}, fetches: { done } };
  }

  #layer(index: number, numHeads: number, headDim: number): Layer {
    const known = this.#layers.get(index);
    if (known !== undefined) return known;
    const { graph, autocast } = this.#tracer;
    const shape = [this.#batchSize * numHeads * this.#numSlots, headDim];
    const make = (what: string): Variable =>
      variable(graph, `cache/${index}/${what}`, autocast.compute, shape);
    const layer = { keys: make("keys"), values: make("values") };
    this.#layers.set(index, layer);
    return layer;
  }

  /** Rows of a cache variable, int32 [B*K*Q]: (b * K + k) * S + slot. */
  #rowsOf(slots_BQ: GraphTensor, numHeads: number): GraphTensor {
    const [b, q] = slots_BQ.shape as [number, number];
    const starts = Int32Array.from({ length: b * numHeads }, (_, head) => head * this.#numSlots);
    const rows = op.add(
      op.constant(this.#tracer.graph, starts, "int32", [b, numHeads, 1]),
      op.reshape(slots_BQ, [b, 1, q]),
    );
    return op.reshape(rows, [b * numHeads * q]);
  }

  /** Writes [B, Q, K, H] to the rows and returns the whole, [B, K, S, H]. */
  #write(target: Variable, rows: GraphTensor, x_BQKH: GraphTensor): GraphTensor {
    const [b, q, k, h] = x_BQKH.shape as [number, number, number, number];
    const flat = op.reshape(op.transpose(x_BQKH, [0, 2, 1, 3]), [b * k * q, h]);
    const values = op.cast(flat, target.dtype);
    const whole = this.#isInPlace
      ? updateInPlace(target, rows, values)
      : readVariable(target, [scatterUpdate(target, rows, values)]);
    return op.reshape(whole, [b, k, this.#numSlots, h]);
  }

  /** Float32 [B, Q, S]: 0 where slot s holds a position that the query sees. */
  #mask(positions_BQ: GraphTensor, window: number): GraphTensor {
    const [b, q] = positions_BQ.shape as [number, number];
    const { graph } = this.#tracer;
    const slots = op.constant(
      graph,
      Int32Array.from({ length: this.#numSlots }, (_, slot) => slot),
      "int32",
      [1, 1, this.#numSlots],
    );
    const positions = op.reshape(positions_BQ, [b, q, 1]);
    const past = op.lessEqual(slots, positions);
    const visible =
      window === 0
        ? past
        : op.logical(
            "LogicalAnd",
            past,
            op.greater(slots, op.sub(positions, op.intScalar(graph, window))),
          );
    return op.select(visible, op.scalar(graph, 0), op.scalar(graph, hiddenScore));
  }
}

function softcapped(scores: GraphTensor, softcap: number): GraphTensor {
  if (softcap === 0) return scores;
  const cap = op.scalar(scores.node.graph, softcap);
  return op.mul(op.unary("Tanh", op.div(scores, cap)), cap);
}

/**
 * Attention of one query a row, [B, K, G, H], in float32 inside. Sums of products in one kernel, since
 * matrix products of one row would each cost more to start than to compute.
 *
 * @param args queries, keys and values [B, K, S, H], and the mask [B, S]
 */
function attendOne(
  args: readonly GraphTensor[],
  scale: number,
  softcap: number | null | undefined,
): GraphTensor {
  const [q_BKGH, keys_BKSH, values_BKSH, mask_BS] = args as Tuple4<GraphTensor>;
  const [b, k, g, h] = q_BKGH.shape as Tuple4<number>;
  const s = keys_BKSH.shape[2] as number;
  const { graph } = q_BKGH.node;
  // XLA adds the elements of one vector one by one, but many vectors side by side.
  const lanes = h % 16 === 0 ? 16 : 1;
  const parts = [h / lanes, lanes];
  const q = op.reshape(op.cast(q_BKGH, "float32"), [b, k, g, 1, ...parts]);
  const keys = op.reshape(op.cast(keys_BKSH, "float32"), [b, k, 1, s, ...parts]);
  const sums = op.reduce("Sum", op.mul(q, keys), [4], false);
  const products_BKGS = op.reduce("Sum", sums, [4], false);
  const scores = softcapped(op.mul(products_BKGS, op.scalar(graph, scale)), softcap ?? 0);
  const masked_BKGS = op.add(scores, op.reshape(mask_BS, [b, 1, 1, s]));
  const highest_BKG1 = op.reduce("Max", masked_BKGS, [3], true);
  const exp_BKGS = op.unary("Exp", op.sub(masked_BKGS, highest_BKG1));
  const total_BKG1 = op.reduce("Sum", exp_BKGS, [3], true);
  const weighted = op.mul(
    op.reshape(exp_BKGS, [b, k, g, s, 1]),
    op.reshape(op.cast(values_BKSH, "float32"), [b, k, 1, s, h]),
  );
  const mixed_BKGH = op.div(op.reduce("Sum", weighted, [3], false), total_BKG1);
  return op.cast(mixed_BKGH, values_BKSH.dtype);
}

type Tuple4<T> = readonly [T, T, T, T];
