import { GraphBuilder, type GraphNode, type GraphTensor } from "./builder.js";
import { argumentOp, callXlaFunction } from "./xla-function.js";

/** Nodes that stay outside of a region: what is fed, and what reads the session's state. */
const boundaryOps = new Set(["Placeholder", "ReadVariableOp"]);

/**
 * Everything that `results` need, as one function that XLA compiles: a whole step of training, products
 * included. What is fed and what is read of variables become its arguments. The nodes themselves stay
 * in the graph for those who fetch them there.
 *
 * Meant for GPUs: on a CPU, XLA's products are slower than oneDNN's. Order that control edges ask for
 * is XLA's to choose within the function.
 *
 * @returns the values of `results`, out of the function
 * @throws E_GRAPH_FUNCTION_OP for an op that has no place in a function, such as one with an effect
 */
export function xlaRegion(name: string, results: readonly GraphTensor[]): readonly GraphTensor[] {
  const graph = (results[0] as GraphTensor).node.graph;
  const needed = neededNodes(results);
  const inputs: GraphTensor[] = [];
  const body = new GraphBuilder();
  const copies = new Map<GraphNode, readonly GraphTensor[]>();
  const copyOf = ({ node, index }: GraphTensor): GraphTensor =>
    (copies.get(node) as readonly GraphTensor[])[index] as GraphTensor;
  // In order of creation, so that a node's inputs come before it.
  for (const node of graph.nodes) {
    if (!needed.has(node)) continue;
    if (boundaryOps.has(node.op)) {
      const [value] = node.outputs as [GraphTensor];
      const { dtype, shape } = value;
      const argument = body.tensor(argumentOp, [], {}, dtype, shape, {
        name: `arg${inputs.length}`,
      });
      inputs.push(value);
      copies.set(node, [argument]);
      continue;
    }
    const copy = body.add(node.op, node.inputs.map(copyOf), node.attrs, node.outputs, {
      name: node.name,
    });
    copies.set(node, copy.outputs);
  }
  return callXlaFunction(graph, name, inputs, {
    body,
    args: inputs.map(({ node }) => (copies.get(node) as readonly GraphTensor[])[0] as GraphTensor),
    results: results.map(copyOf),
  });
}

/** The nodes that results need by data, boundary nodes included but nothing behind them. */
function neededNodes(results: readonly GraphTensor[]): ReadonlySet<GraphNode> {
  const needed = new Set<GraphNode>();
  const pending = results.map(({ node }) => node);
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (needed.has(node)) continue;
    needed.add(node);
    if (!boundaryOps.has(node.op)) pending.push(...node.inputs.map((input) => input.node));
  }
  return needed;
}
