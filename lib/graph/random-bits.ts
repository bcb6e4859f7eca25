import type { GraphNode, GraphTensor } from "./builder.js";
import * as op from "./tf-ops.js";

export const randomBitsOp = "StatelessRandomUniformFullIntV2";
/** TensorFlow's number of Philox4x32-10, which has the same values on every device. */
const philox = 1;

/** Which of all random bits are taken; the words of `philoxWords` in lib/ops. */
interface BitsSource {
  /** The two words of the key. */
  readonly key: readonly [number, number];
  /** The first word of the counter. */
  readonly firstGroup: number;
  /** int32 [3], its other words. */
  readonly coordinates: GraphTensor;
  /**
   * Bits wait for it: they would all be computed at first, as nothing else is needed for them. Those that
   * wait for another node are another value, so backward makes a mask again instead of keeping it.
   */
  readonly after: GraphNode;
}

/** 16 random bits for each element, uint16 [words, 2]: one too many where the elements are odd. */
export function randomHalves(
  numElements: number,
  { key, firstGroup, coordinates, after }: BitsSource,
): GraphTensor {
  const graph = coordinates.node.graph;
  const numWords = Math.ceil(numElements / 2);
  const counter = op.concat([op.ints(graph, [firstGroup]), coordinates], 0);
  const words = graph.tensor(
    randomBitsOp,
    [
      op.ints(graph, [numWords]),
      op.bitcast(op.constant(graph, Int32Array.from(key), "int32", [1, 2]), "uint64", [1]),
      op.bitcast(op.reshape(counter, [2, 2]), "uint64", [2]),
      op.intScalar(graph, philox),
    ],
    { dtype: op.type("int32"), Tshape: op.type("int32") },
    "int32",
    [numWords],
    { controlInputs: [after] },
  );
  return op.bitcast(words, "uint16", [numWords, 2]);
}
