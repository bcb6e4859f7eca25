import type { GraphNode, GraphTensor } from "./builder.js";

const makers = new WeakMap<GraphNode, (after: readonly GraphNode[]) => GraphTensor>();

/**
 * A value that each product makes for itself, right before it and again in backward, and that lives no longer: what
 * is kept is what it is made of. Whatever else uses the value has the one that is returned here.
 *
 * @param make appends the nodes that make it, the first of which wait for `after`
 */
export function onDemand(make: (after: readonly GraphNode[]) => GraphTensor): GraphTensor {
  const value = make([]);
  makers.set(value.node, make);
  return value;
}

/**
 * The operand of a product: a value on demand made once the other operand is there. TensorFlow would make all of
 * them at the start of a step, as they wait for nothing else.
 */
export function madeFor(operand: GraphTensor, other: GraphTensor): GraphTensor {
  return makers.get(operand.node)?.([other.node]) ?? operand;
}
