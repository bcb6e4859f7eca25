/**
 * What the matrix products of a step of GPT-2 124M take at TensorFlow's rates, in the engine's session and
 * nothing else: forward, and both gradients of each. Attention counts half of its products, the causal half.
 *
 * node dist/bench/floor.js [--precision bf16|fp32] [--shapes 2x512,1x1024] [--repeat N]
 *
 * Prints {"values": {"step-2x512": seconds}}.
 */
import { parseArgs } from "node:util";
import { GraphBuilder, type GraphDtype, type GraphTensor } from "#lib/graph/builder";
import { paddedRows } from "#lib/graph/padded-rows";
import { type Program, Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { assign, readVariable, variable } from "#lib/graph/variables";
import { median } from "./frame/compare.js";

const { values: options } = parseArgs({
  options: {
    precision: { type: "string", default: "bf16" },
    shapes: { type: "string", default: "2x512,1x1024" },
    repeat: { type: "string", default: "7" },
  },
});
process.env["TF_NUM_INTEROP_THREADS"] ??= "1";
const dtype: GraphDtype = options.precision === "fp32" ? "float32" : "bfloat16";
const [numLayers, numHeads, headSize, hidden] = [12, 12, 64, 768];
/** As many rows as the fastest product has, and as the engine's: odd ones take longer. */
const vocabulary = paddedRows(50257);

/** Products of one part of the model. Every operand is a variable of its own, as activations are. */
class Products {
  readonly graph = new GraphBuilder();
  readonly #loads: Program[] = [];
  readonly #results: GraphTensor[] = [];

  operand(shape: readonly number[]): GraphTensor {
    const index = this.#loads.length;
    const target = variable(this.graph, `operand-${index}`, dtype, shape);
    const stored = assign(target, op.fill(op.scalar(this.graph, 0.02, dtype), shape));
    const done = op.identity(op.intScalar(this.graph, 1), {
      name: `fetch/operand-${index}`,
      controlInputs: [stored],
    });
    this.#loads.push({ name: `load-${index}`, feeds: {}, fetches: { done } });
    return readVariable(target);
  }

  /** a x b and its gradients, given that of the product. */
  add(aShape: readonly number[], bShape: readonly number[], transposeB = false): void {
    const [a, b] = [this.operand(aShape), this.operand(bShape)];
    const product = op.matMul(a, b, false, transposeB);
    const gradient = this.operand(product.shape);
    this.#results.push(
      product,
      op.matMul(gradient, b, false, !transposeB),
      transposeB ? op.matMul(gradient, a, true, false) : op.matMul(a, gradient, true, false),
    );
  }

  /** Seconds of all products, the median of some runs after two. */
  measure(): number {
    // One element of each leaves the session; nothing is computed that no fetch needs.
    const ends = this.#results.map((x) => {
      const corner = op.slice(
        x,
        x.shape.map(() => 0),
        x.shape.map(() => 1),
      );
      return op.cast(op.reshape(corner, [1]), "float32");
    });
    const program: Program = { name: "run", feeds: {}, fetches: { ends: op.concat(ends, 0) } };
    const session = new Session(this.graph);
    for (const load of this.#loads) session.run(load, {});
    const seconds = Array.from({ length: Number(options.repeat) + 2 }, () => {
      const startedAt = performance.now();
      session.run(program, {});
      return (performance.now() - startedAt) / 1000;
    });
    session.close();
    return median(seconds.slice(2));
  }
}

function floorSeconds(rows: number, length: number): number {
  const numTokens = rows * length;
  const dense = new Products();
  for (const [from, to] of [
    [hidden, 3 * hidden],
    [hidden, hidden],
    [hidden, 4 * hidden],
    [4 * hidden, hidden],
  ] as const) {
    dense.add([numTokens, from], [from, to]);
  }
  const attention = new Products();
  const heads = [rows * numHeads, length, headSize];
  attention.add(heads, heads, true);
  attention.add([rows * numHeads, length, length], heads);
  const head = new Products();
  head.add([numTokens, hidden], [vocabulary, hidden], true);
  return numLayers * (dense.measure() + attention.measure() / 2) + head.measure();
}

const values: Record<string, number> = {};
for (const shape of options.shapes.split(",")) {
  const [rows, length] = shape.split("x").map(Number) as [number, number];
  values[`step-${shape}`] = floorSeconds(rows, length);
}
console.log(JSON.stringify({ values }));
