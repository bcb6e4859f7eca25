import { GraphBuilder, type GraphNode, type GraphTensor } from "./builder.js";
import { argumentOp, callXlaFunction } from "./xla-function.js";

/** Nodes that stay outside of a region: what is fed, and what reads the session's state. */
const boundaryOps = new Set(["Placeholder", "ReadVariableOp"]);

/**
 * Everything that `results` need, as one function that XLA compiles: a whole step of training, products
 * included. What is fed and what is read of variables become its arguments. The nodes themselves stay
 * in the graph for those who fetch them there.
 *
 * XLA knows no control edges and merges equal instructions, so a control edge becomes a barrier between
 * what must be there and an input of the node that waits: recomputed activations stay recomputed.
 *
 * Meant for GPUs: on a CPU, XLA's products are slower than oneDNN's.
 *
 * @returns the values of `results`, out of the function
 * @throws E_GRAPH_FUNCTION_OP for an op that has no place in a function, such as one with an effect
 */
export function xlaRegion(name: string, results: readonly GraphTensor[]): readonly GraphTensor[] {
  const graph = (results[0] as GraphTensor).node.graph;
  const inputs: GraphTensor[] = [];
  const args: GraphTensor[] = [];
  const body = new GraphBuilder();
  const copies = new Map<GraphNode, readonly GraphTensor[]>();
  const copyOf = ({ node, index }: GraphTensor): GraphTensor =>
    (copies.get(node) as readonly GraphTensor[])[index] as GraphTensor;
  for (const node of neededNodes(results)) {
    if (boundaryOps.has(node.op)) {
      const [value] = node.outputs as [GraphTensor];
      const options = { name: `arg${args.length}` };
      const arg = body.tensor(argumentOp, [], {}, value.dtype, value.shape, options);
      inputs.push(value);
      args.push(arg);
      copies.set(node, [arg]);
      continue;
    }
    const awaited = [...node.controlInputs].map((control) => copyOf(firstOutput(control)));
    const operands = behind(awaited, node.inputs.map(copyOf));
    const copy = body.add(node.op, operands, node.attrs, node.outputs, { name: node.name });
    copies.set(node, copy.outputs);
  }
  return callXlaFunction(graph, name, inputs, { body, args, results: results.map(copyOf) });
}

const firstOutput = ({ outputs }: GraphNode): GraphTensor => outputs[0] as GraphTensor;

/** The operands, one of them there only after `awaited`: no constant, which XLA may have to know. */
function behind(awaited: readonly GraphTensor[], operands: readonly GraphTensor[]): GraphTensor[] {
  const place = operands.findIndex(({ node }) => node.op !== "Const");
  const waiting = operands[place];
  if (awaited.length === 0 || waiting === undefined) return [...operands];
  const held = [waiting, ...awaited];
  const barrier = waiting.node.graph.add(
    "XlaOptimizationBarrier",
    held,
    { T: { kind: "types", value: held.map(({ dtype }) => dtype) } },
    held,
  );
  return operands.with(place, firstOutput(barrier));
}

/** The nodes that results need, each after those that it needs; nothing behind boundary nodes. */
function neededNodes(results: readonly GraphTensor[]): ReadonlySet<GraphNode> {
  const done = new Set<GraphNode>();
  const pending = results.map(({ node }) => node).reverse();
  for (let node = pending.at(-1); node !== undefined; node = pending.at(-1)) {
    const needs = boundaryOps.has(node.op)
      ? []
      : [...node.inputs.map((input) => input.node), ...node.controlInputs];
    const missing = needs.filter((need) => !done.has(need));
    pending.push(...missing);
    if (missing.length > 0) continue;
    pending.pop();
    done.add(node);
  }
  return done;
}
