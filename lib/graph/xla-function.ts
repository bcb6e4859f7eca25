import { LockstepError } from "#lib/core/errors/index";
import { type GraphAttrs, GraphBuilder, type GraphFunction, type GraphTensor } from "./builder.js";

/**
 * Output arguments of the ops of a function body: inside a function TensorFlow names a value by node,
 * output argument and index.
 */
const outputArgs: Readonly<Record<string, string>> = {
  ...named("z", "AddV2 Sub Mul RealDiv FloorDiv FloorMod Pow Maximum Minimum SquaredDifference"),
  ...named("z", "Less LessEqual Greater GreaterEqual Equal NotEqual LogicalAnd LogicalOr"),
  ...named("z", "RightShift BitwiseAnd"),
  ...named("y", "Cast Neg Abs Square Sign Floor Ceil Exp Expm1 Log Log1p Sqrt Rsqrt Sigmoid Tanh"),
  ...named("y", "Erf Sin Cos Reciprocal LogicalNot Transpose"),
  ...named("activations", "Relu Elu Softplus"),
  ...named("product", "MatMul"),
  ...named("softmax", "Softmax"),
  ...named("logsoftmax", "LogSoftmax"),
  ...named("sum", "AddN"),
  ...named("out", "Cumsum"),
  ...named(
    "output",
    "Const Reshape Slice ConcatV2 GatherV2 SelectV2 OneHot Fill BroadcastTo PadV2",
  ),
  ...named("output", "Sum Mean Max Min Prod Tile BatchMatMulV2 Split UnsortedSegmentSum"),
  ...named("output", "Identity Bitcast ArgMax Pack PartitionedCall XlaOptimizationBarrier"),
  ...named("output", "TensorScatterAdd StatelessRandomUniformFullIntV2"),
};

function named(arg: string, ops: string): Record<string, string> {
  return Object.fromEntries(ops.split(" ").map((op) => [op, arg]));
}

/** The name of a value inside a function body. */
export function bodyRef({ node, index }: GraphTensor): string {
  if (node.op === argumentOp) return node.name;
  const arg = outputArgs[node.op];
  if (arg === undefined) throw new LockstepError("E_GRAPH_FUNCTION_OP", { op: node.op });
  return `${node.name}:${arg}:${index}`;
}

/** Stands for an argument in a function body; TensorFlow sees it as a part of the signature. */
export const argumentOp = "_Arg";

/**
 * Appends a call of a function that XLA compiles to one kernel: elementwise work between matrix
 * products then reads and writes memory once. The first run of a function compiles it (50 to 150 ms).
 *
 * @param body appends to the graph it is given, out of pure ops only; equal bodies become one function
 * @returns what `body` returns, as values of `graph`
 * @throws E_GRAPH_FUNCTION_OP for an op that has no place in a function
 */
export function xlaFunction(
  graph: GraphBuilder,
  name: string,
  inputs: readonly GraphTensor[],
  body: (args: readonly GraphTensor[]) => readonly GraphTensor[],
): readonly GraphTensor[] {
  const bodyGraph = new GraphBuilder();
  const args = inputs.map((input, index) =>
    bodyGraph.tensor(argumentOp, [], {}, input.dtype, input.shape, { name: `arg${index}` }),
  );
  return callXlaFunction(graph, name, inputs, { body: bodyGraph, args, results: body(args) });
}

/** Appends a call of a function whose body is there already. */
export function callXlaFunction(
  graph: GraphBuilder,
  name: string,
  inputs: readonly GraphTensor[],
  { body, args, results }: Omit<GraphFunction, "name">,
): readonly GraphTensor[] {
  for (const node of body.nodes) for (const input of node.inputs) bodyRef(input);
  for (const result of results) bodyRef(result);
  const attrs: GraphAttrs = {
    Tin: { kind: "types", value: inputs.map((input) => input.dtype) },
    Tout: { kind: "types", value: results.map((result) => result.dtype) },
    _XlaMustCompile: { kind: "bool", value: true },
    config: { kind: "string", value: "" },
    config_proto: { kind: "string", value: "" },
    executor_type: { kind: "string", value: "" },
    f: { kind: "function", value: graph.addFunction(name, body, args, results).name },
  };
  return graph.add(
    "PartitionedCall",
    inputs,
    attrs,
    results.map(({ dtype, shape }) => ({ dtype, shape })),
  ).outputs;
}

/** As `xlaFunction` for a function with one result. */
export const xlaTensor = (
  graph: GraphBuilder,
  name: string,
  inputs: readonly GraphTensor[],
  body: (args: readonly GraphTensor[]) => GraphTensor,
): GraphTensor => xlaFunction(graph, name, inputs, (args) => [body(args)])[0] as GraphTensor;
