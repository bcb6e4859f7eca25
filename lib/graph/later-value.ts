import type { GraphBuilder, GraphDtype, GraphTensor } from "./builder.js";
import * as op from "./tf-ops.js";

/**
 * A value that stands in the graph before what gives it is made: parts of a graph that are traced one after
 * the other may need values of each other. With one that is never given TensorFlow refuses the graph.
 */
export interface LaterValue {
  readonly tensor: GraphTensor;
  /** To be called once. */
  readonly give: (value: GraphTensor) => void;
}

export function laterValue(
  graph: GraphBuilder,
  dtype: GraphDtype,
  shape: readonly number[],
): LaterValue {
  const inputs: GraphTensor[] = [];
  const attrs = { T: op.type(dtype) };
  // Two of one shape are two values.
  const options = { stateful: true };
  const tensor = graph.tensor("Identity", inputs, attrs, dtype, shape, options);
  // A node that waits for itself, which is an error; one without inputs would end the process.
  inputs[0] = tensor;
  return {
    tensor,
    give: (value) => {
      inputs[0] = value;
    },
  };
}
