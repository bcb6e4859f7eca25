import { promote, toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering, scalarLike } from "#lib/graph/tracing-backend";

type Binary = (a: GraphTensor, b: GraphTensor) => GraphTensor;

/** The value of a tensor that is one constant everywhere, else undefined. */
function uniformValue(x: GraphTensor): number | undefined {
  let source = x;
  while (source.node.op === "Fill" || source.node.op === "Cast" || source.node.op === "Reshape") {
    source = source.node.inputs[source.node.op === "Fill" ? 1 : 0] as GraphTensor;
  }
  const value = source.node.op === "Const" ? source.node.attrs["value"] : undefined;
  if (value?.kind !== "tensor" || value.dtype !== "float32" || value.bytes.length !== 4)
    return undefined;
  return new DataView(value.bytes.buffer, value.bytes.byteOffset).getFloat32(0, true);
}

function binary(name: string, lower: Binary): void {
  registerLowering(name, (_, inputs) => {
    const [a, b] = promote(name, [inputs["a"] as GraphTensor, inputs["b"] as GraphTensor]);
    return lower(a as GraphTensor, b as GraphTensor);
  });
}

// A table that is read by its rows and used in a product too, as tied embeddings are, has a gradient of
// two parts: the few rows are added to the other part, not a second table of zeros around them. Indices that a gather
// has read by are in range, which the sum by rows would not ask for.
binary("Add", (a, b) => addRows(a, b) ?? addRows(b, a) ?? op.add(a, b));

function addRows(table: GraphTensor, rowSum: GraphTensor): GraphTensor | undefined {
  const { node } = rowSum;
  if (node.op !== "UnsortedSegmentSum" || !op.sameShape(table.shape, rowSum.shape))
    return undefined;
  const [rows, indices] = node.inputs as [GraphTensor, GraphTensor];
  return indices.shape.length === 1 ? op.tensorScatterAdd(table, indices, rows) : undefined;
}

binary("Sub", op.sub);
binary("RealDiv", op.div);
binary("FloorDiv", op.floorDiv);
binary("Mod", op.mod);
binary("Pow", op.pow);
binary("Maximum", op.maximum);
binary("Minimum", op.minimum);
binary("SquaredDifference", op.squaredDifference);
binary("Less", op.less);
binary("LessEqual", op.lessEqual);
binary("Greater", op.greater);
binary("GreaterEqual", op.greaterEqual);
binary("Equal", op.equal);
binary("NotEqual", op.notEqual);

// The gradient tape seeds with ones and multiplies by them: a product with one is the other factor.
registerLowering("Multiply", (_, inputs) => {
  const [a, b] = promote("Multiply", [inputs["a"] as GraphTensor, inputs["b"] as GraphTensor]) as [
    GraphTensor,
    GraphTensor,
  ];
  const shape = op.broadcastShape("Multiply", a.shape, b.shape);
  if (uniformValue(a) === 1 && op.sameShape(b.shape, shape)) return b;
  if (uniformValue(b) === 1 && op.sameShape(a.shape, shape)) return a;
  return op.mul(a, b);
});

registerLowering("LogicalAnd", (_, inputs) =>
  op.logical("LogicalAnd", inputs["a"] as GraphTensor, inputs["b"] as GraphTensor),
);
registerLowering("LogicalOr", (_, inputs) =>
  op.logical("LogicalOr", inputs["a"] as GraphTensor, inputs["b"] as GraphTensor),
);
registerLowering("LogicalNot", (_, inputs) => op.logicalNot(inputs["x"] as GraphTensor));

/** Ops that stay in the type of their operand. */
for (const [kernel, tensorflowOp] of [
  ["Neg", "Neg"],
  ["Abs", "Abs"],
  ["Relu", "Relu"],
  ["Square", "Square"],
  ["Sign", "Sign"],
  ["Floor", "Floor"],
  ["Ceil", "Ceil"],
] as const) {
  registerLowering(kernel, (_, inputs) => op.unary(tensorflowOp, inputs["x"] as GraphTensor));
}

/** Transcendental ops run in float32: their results feed norms, softmax and losses. */
for (const [kernel, tensorflowOp] of [
  ["Exp", "Exp"],
  ["Expm1", "Expm1"],
  ["Log", "Log"],
  ["Log1p", "Log1p"],
  ["Sqrt", "Sqrt"],
  ["Rsqrt", "Rsqrt"],
  ["Sigmoid", "Sigmoid"],
  ["Tanh", "Tanh"],
  ["Erf", "Erf"],
  ["Sin", "Sin"],
  ["Cos", "Cos"],
  ["Softplus", "Softplus"],
  ["Reciprocal", "Reciprocal"],
] as const) {
  registerLowering(kernel, (_, inputs) =>
    op.unary(tensorflowOp, toFloat32(inputs["x"] as GraphTensor)),
  );
}

registerLowering("Select", (_, inputs) => {
  const [t, e] = promote("Select", [inputs["t"] as GraphTensor, inputs["e"] as GraphTensor]);
  return op.select(inputs["condition"] as GraphTensor, t as GraphTensor, e as GraphTensor);
});

registerLowering("Step", (_, inputs, attrs) => {
  const x = inputs["x"] as GraphTensor;
  const below = scalarLike(x, attrs["alpha"] as number);
  return op.select(op.greater(x, scalarLike(x, 0)), scalarLike(x, 1), below);
});

registerLowering("AddN", (_, inputs) => {
  const parts = promote("AddN", Object.values(inputs));
  return op.addN(parts);
});

registerLowering("Cast", (_, inputs, attrs) => {
  const x = inputs["x"] as GraphTensor;
  const dtype = attrs["dtype"] as "float32" | "int32" | "bool";
  if (dtype === "bool" && op.isFloat(x.dtype)) return op.notEqual(x, scalarLike(x, 0));
  return op.cast(x, dtype);
});

registerLowering("Identity", (_, inputs) => inputs["x"] as GraphTensor);
registerLowering("ZerosLike", (_, inputs) => filled(inputs["x"] as GraphTensor, 0));
registerLowering("OnesLike", (_, inputs) => filled(inputs["x"] as GraphTensor, 1));
registerLowering("Fill", (tracer, _, attrs) => {
  const value = attrs["value"] as number;
  const shape = attrs["shape"] as number[];
  return attrs["dtype"] === "int32"
    ? op.fill(op.intScalar(tracer.graph, value), shape)
    : op.fill(op.scalar(tracer.graph, value), shape);
});

function filled(x: GraphTensor, value: number): GraphTensor {
  const graph = x.node.graph;
  if (x.dtype === "int32") return op.fill(op.intScalar(graph, value), x.shape);
  if (x.dtype === "bool") {
    return op.fill(op.constant(graph, Uint8Array.of(value), "bool", []), x.shape);
  }
  return op.fill(op.scalar(graph, value, x.dtype), x.shape);
}
