/**
 * Tries what a device can do, in a process of its own: what oneDNN refuses may end the process, and no
 * `catch` holds that. Prints the finding as JSON.
 *
 * node dist/lib/graph/device-trials.js packs-float32 | packs-bfloat16 | rates THREADS
 */
import { GraphBuilder, type GraphDtype } from "./builder.js";
import { packedProduct } from "./packed-product.js";
import { Session } from "./session.js";
import * as op from "./tf-ops.js";
import { assign, readVariable, variable } from "./variables.js";

/** Whether a packed product gives what it has to. */
function packs(dtype: GraphDtype): boolean {
  const [rows, width] = [2, 64];
  const graph = new GraphBuilder();
  const feed = op.placeholder(graph, "feed/x", "float32", [rows, width]);
  const x = op.cast(feed, dtype);
  const weight = op.fill(op.scalar(graph, 0.5, dtype), [width, width]);
  const sum = op.cast(packedProduct(x, weight, true), "float32");
  const session = new Session(graph);
  const program = { name: "packed", feeds: { feed }, fetches: { sum } };
  const data = { feed: new Float32Array(rows * width).fill(1) };
  return session.run(program, data)["sum"]?.every((value) => value === width / 2) === true;
}

/** Rows of a micro-batch and the width of a small model: products as a step has them. */
const size = 768;
const numProducts = 4;
const numRuns = 5;

/** Seconds of a product of the type, the fastest of some runs. */
function secondsOfProduct(dtype: GraphDtype): number {
  const graph = new GraphBuilder();
  const operand = (name: string) => {
    const target = variable(graph, name, dtype, [size, size]);
    const stored = assign(target, op.fill(op.scalar(graph, 0.03125, dtype), [size, size]));
    const done = op.identity(op.intScalar(graph, 1), {
      name: `fetch/${name}`,
      controlInputs: [stored],
    });
    return { read: () => readVariable(target), done };
  };
  const x = operand("x");
  const weights = Array.from({ length: numProducts }, (_, index) => operand(`w${index}`));
  const product = weights.reduce((y, w) => op.matMul(y, w.read(), false, false), x.read());
  const last = op.cast(op.slice(product, [0, 0], [1, 1]), "float32");
  const load = Object.fromEntries([x, ...weights].map(({ done }, i) => [`done${i}`, done]));
  const session = new Session(graph);
  session.run({ name: "load", feeds: {}, fetches: load }, {});
  const seconds = Array.from({ length: numRuns }, () => {
    const startedAt = performance.now();
    session.run({ name: "products", feeds: {}, fetches: { last } }, {});
    return (performance.now() - startedAt) / 1000 / numProducts;
  });
  return Math.min(...seconds);
}

function rates(threads: string) {
  process.env["TF_NUM_INTRAOP_THREADS"] = threads;
  process.env["TF_NUM_INTEROP_THREADS"] = "1";
  const gflops = (dtype: GraphDtype): number => (2 * size ** 3) / secondsOfProduct(dtype) / 1e9;
  return {
    float32: gflops("float32"),
    bfloat16: gflops("bfloat16"),
    float16: gflops("float16"),
  };
}

const [trial, threads = "1"] = process.argv.slice(2);
const finding =
  trial === "rates" ? rates(threads) : packs(trial === "packs-bfloat16" ? "bfloat16" : "float32");
process.stdout.write(JSON.stringify(finding));
