// Shape legend: B batch, Q new tokens of a row, N query heads, K key/value heads, G = N/K, H head
// width, S slots of a row.
import { LockstepError } from "#lib/core/errors/index";
import { toCompute } from "./autocast.js";
import type { GraphBuilder, GraphDtype, GraphNode, GraphTensor } from "./builder.js";
import type { Program } from "./session.js";
import * as op from "./tf-ops.js";
import type { Lowering } from "./tracing-backend.js";
import { assign, readVariable, scatterUpdate, type Variable, variable } from "./variables.js";

/** Added to the score of a key that a query may not see: softmax turns it to exactly 0. */
const hiddenScore = -1e30;

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
  readonly #graph: GraphBuilder;
  readonly #batchSize: number;
  readonly #numSlots: number;
  readonly #dtype: GraphDtype;
  readonly #layers: Layer[] = [];

  /** @param maxLength longest row, tokens */
  constructor(graph: GraphBuilder, batchSize: number, maxLength: number, dtype: GraphDtype) {
    this.#graph = graph;
    this.#batchSize = batchSize;
    this.#numSlots = maxLength + 1;
    this.#dtype = dtype;
  }

  /** The slot that padding writes to. */
  get paddingSlot(): number {
    return this.#numSlots - 1;
  }

  /**
   * Attention of one program, in place of the kernel that sees its own tokens only: writes the new
   * keys and values, then attends to all that the row has so far. Layers are told by the order of
   * their calls, which is the same in every program of a model.
   *
   * @param positions_BQ int32
   * @param slots_BQ int32, the positions, or `paddingSlot`
   */
  attention(positions_BQ: GraphTensor, slots_BQ: GraphTensor): Lowering {
    let nextLayer = 0;
    return (tracer, inputs, attrs) => {
      if (attrs["causal"] !== true) {
        throw new LockstepError("E_MODEL_UNSUPPORTED", {
          what: "generation with a model whose tokens see later ones",
        });
      }
      const q_BQNH = toCompute(tracer.autocast, inputs["q"] as GraphTensor);
      const k_BQKH = toCompute(tracer.autocast, inputs["k"] as GraphTensor);
      const v_BQKH = toCompute(tracer.autocast, inputs["v"] as GraphTensor);
      const [b, q, n, h] = q_BQNH.shape as [number, number, number, number];
      const k = k_BQKH.shape[2] as number;
      const layer = this.#layer(nextLayer++, k, h, v_BQKH.shape[3] as number);
      const rows = this.#rowsOf(slots_BQ, k);
      const keys_BKSH = this.#write(layer.keys, rows, k_BQKH);
      const values_BKSH = this.#write(layer.values, rows, v_BQKH);
      const queries = op.reshape(op.transpose(q_BQNH, [0, 2, 1, 3]), [b, k, (n / k) * q, h]);
      const scores = op.matMul(queries, keys_BKSH, false, true);
      const scaled = op.mul(
        op.cast(scores, "float32"),
        op.scalar(this.#graph, attrs["scale"] as number),
      );
      const capped = softcapped(scaled, attrs["softcap"] as number);
      const s = this.#numSlots;
      const masked = op.add(
        op.reshape(capped, [b, k, n / k, q, s]),
        op.reshape(this.#mask(positions_BQ, attrs["window"] as number), [b, 1, 1, q, s]),
      );
      const probs = op.softmax(op.reshape(masked, [b, k, (n / k) * q, s]));
      const mixed = op.matMul(op.cast(probs, values_BKSH.dtype), values_BKSH, false, false);
      const width = v_BQKH.shape[3] as number;
      return op.transpose(op.reshape(mixed, [b, n, q, width]), [0, 2, 1, 3]);
    };
  }

  /** Fills the variables that the traced programs use; run it once, before them. */
  initProgram(): Program {
    const assigns: GraphNode[] = this.#layers
      .flatMap(({ keys, values }) => [keys, values])
      .map((v) => assign(v, op.fill(op.scalar(this.#graph, 0, v.dtype), v.shape)));
    const done = op.identity(op.intScalar(this.#graph, 1), {
      name: "fetch/cache/init",
      controlInputs: assigns,
    });
    return { name: "initCache", feeds: {}, fetches: { done } };
  }

  #layer(index: number, numHeads: number, keyWidth: number, valueWidth: number): Layer {
    const known = this.#layers[index];
    if (known !== undefined) return known;
    const rows = this.#batchSize * numHeads * this.#numSlots;
    const make = (what: string, width: number): Variable =>
      variable(this.#graph, `cache/${index}/${what}`, this.#dtype, [rows, width]);
    const layer = { keys: make("keys", keyWidth), values: make("values", valueWidth) };
    this.#layers.push(layer);
    return layer;
  }

  /** Rows of a cache variable, int32 [B*K*Q]: (b * K + k) * S + slot. */
  #rowsOf(slots_BQ: GraphTensor, numHeads: number): GraphTensor {
    const [b, q] = slots_BQ.shape as [number, number];
    const starts = Int32Array.from({ length: b * numHeads }, (_, head) => head * this.#numSlots);
    const rows = op.add(
      op.constant(this.#graph, starts, "int32", [b, numHeads, 1]),
      op.reshape(slots_BQ, [b, 1, q]),
    );
    return op.reshape(rows, [b * numHeads * q]);
  }

  /** Writes [B, Q, K, H] to the rows and returns the whole, [B, K, S, H]. */
  #write(target: Variable, rows: GraphTensor, x_BQKH: GraphTensor): GraphTensor {
    const [b, q, k, h] = x_BQKH.shape as [number, number, number, number];
    const flat = op.reshape(op.transpose(x_BQKH, [0, 2, 1, 3]), [b * k * q, h]);
    const written = scatterUpdate(target, rows, op.cast(flat, target.dtype));
    return op.reshape(readVariable(target, [written]), [b, k, this.#numSlots, h]);
  }

  /** Float32 [B, Q, S]: 0 where slot s holds a position that the query sees. */
  #mask(positions_BQ: GraphTensor, window: number): GraphTensor {
    const [b, q] = positions_BQ.shape as [number, number];
    const graph = this.#graph;
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
