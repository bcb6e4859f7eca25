/**
 * TensorFlow ops as functions that append nodes and infer static shapes.
 *
 * These are the vocabulary of the lowerings: they do what TensorFlow's op of the same name does, cast
 * nothing and promote nothing (`lib/graph/autocast.ts` decides types), but for `matMul` of half types.
 */
import { LockstepError } from "#lib/core/errors/index";
import { hasProducts } from "./bf16-kernels.js";
import type { GraphAttr, GraphBuilder, GraphDtype, GraphNode, GraphTensor } from "./builder.js";

export const type = (value: GraphDtype): GraphAttr => ({ kind: "type", value });
export const bool = (value: boolean): GraphAttr => ({ kind: "bool", value });
export const int = (value: number): GraphAttr => ({ kind: "int", value });
const int32: GraphAttr = type("int32");

export const numElements = (shape: readonly number[]): number =>
  shape.reduce((product, dim) => product * dim, 1);

export const isFloat = (dtype: GraphDtype): boolean =>
  dtype === "float32" || dtype === "bfloat16" || dtype === "float16" || dtype === "float64";

export function constant(
  graph: GraphBuilder,
  values: Float32Array | Int32Array | Uint8Array,
  dtype: "float32" | "int32" | "bool",
  shape: readonly number[],
): GraphTensor {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice();
  return graph.tensor(
    "Const",
    [],
    { dtype: type(dtype), value: { kind: "tensor", dtype, shape, bytes } },
    dtype,
    shape,
  );
}

export const ints = (graph: GraphBuilder, values: readonly number[]): GraphTensor =>
  constant(graph, Int32Array.from(values), "int32", [values.length]);

export const intScalar = (graph: GraphBuilder, value: number): GraphTensor =>
  constant(graph, Int32Array.of(value), "int32", []);

/** The values of an int32 constant; none for any other node. */
export function constantInts(x: GraphTensor): readonly number[] {
  const value = x.node.op === "Const" ? x.node.attrs["value"] : undefined;
  if (value?.kind !== "tensor" || value.dtype !== "int32") return [];
  return [...new Int32Array(value.bytes.slice().buffer)];
}

/** A float scalar in the given type: a float32 constant behind a cast, which TensorFlow folds. */
export const scalar = (
  graph: GraphBuilder,
  value: number,
  dtype: GraphDtype = "float32",
): GraphTensor => cast(constant(graph, Float32Array.of(value), "float32", []), dtype);

export const placeholder = (
  graph: GraphBuilder,
  name: string,
  dtype: GraphDtype,
  shape: readonly number[],
): GraphTensor =>
  graph.tensor(
    "Placeholder",
    [],
    { dtype: type(dtype), shape: { kind: "shape", value: shape } },
    dtype,
    shape,
    { name },
  );

export const cast = (x: GraphTensor, dtype: GraphDtype): GraphTensor =>
  x.dtype === dtype
    ? x
    : x.node.graph.tensor("Cast", [x], { SrcT: type(x.dtype), DstT: type(dtype) }, dtype, x.shape);

/** Reads the bytes as another type; the last dimension appears or vanishes with the width. */
export function bitcast(x: GraphTensor, dtype: GraphDtype, shape: readonly number[]): GraphTensor {
  return x.node.graph.tensor("Bitcast", [x], { T: type(x.dtype), type: type(dtype) }, dtype, shape);
}

export function reshape(x: GraphTensor, shape: readonly number[]): GraphTensor {
  if (numElements(shape) !== numElements(x.shape)) {
    throw new LockstepError("E_GRAPH_SHAPE", {
      op: "Reshape",
      expected: `${numElements(x.shape)} elements`,
      got: `[${shape.join(", ")}]`,
    });
  }
  if (sameShape(x.shape, shape)) return x;
  // A reshape of a reshape needs only the last one.
  const source = x.node.op === "Reshape" ? (x.node.inputs[0] as GraphTensor) : x;
  if (sameShape(source.shape, shape)) return source;
  const graph = x.node.graph;
  return graph.tensor(
    "Reshape",
    [source, ints(graph, shape)],
    { T: type(x.dtype), Tshape: int32 },
    x.dtype,
    shape,
  );
}

export function transpose(x: GraphTensor, perm: readonly number[]): GraphTensor {
  if (perm.every((axis, index) => axis === index)) return x;
  const graph = x.node.graph;
  return graph.tensor(
    "Transpose",
    [x, ints(graph, perm)],
    { T: type(x.dtype), Tperm: int32 },
    x.dtype,
    perm.map((axis) => x.shape[axis] as number),
  );
}

export function broadcastShape(
  op: string,
  a: readonly number[],
  b: readonly number[],
): readonly number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, index) => {
    const dimA = a[a.length - rank + index] ?? 1;
    const dimB = b[b.length - rank + index] ?? 1;
    if (dimA !== dimB && dimA !== 1 && dimB !== 1) {
      throw new LockstepError("E_GRAPH_SHAPE", {
        op,
        expected: `shapes that broadcast`,
        got: `[${a.join(", ")}] and [${b.join(", ")}]`,
      });
    }
    return dimA === 1 ? dimB : dimA;
  });
}

export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((dim, index) => dim === b[index]);

const binaryOp =
  (op: string, result?: "bool") =>
  (a: GraphTensor, b: GraphTensor): GraphTensor => {
    if (a.dtype !== b.dtype) {
      throw new LockstepError("E_GRAPH_DTYPE", {
        op,
        expected: "operands of one type",
        got: `${a.dtype} and ${b.dtype}`,
      });
    }
    return a.node.graph.tensor(
      op,
      [a, b],
      { T: type(a.dtype) },
      result ?? a.dtype,
      broadcastShape(op, a.shape, b.shape),
    );
  };

export const add = binaryOp("AddV2");
export const sub = binaryOp("Sub");
export const mul = binaryOp("Mul");
export const div = binaryOp("RealDiv");
export const floorDiv = binaryOp("FloorDiv");
export const mod = binaryOp("FloorMod");
export const pow = binaryOp("Pow");
export const maximum = binaryOp("Maximum");
export const minimum = binaryOp("Minimum");
export const squaredDifference = binaryOp("SquaredDifference");
export const rightShift = binaryOp("RightShift");
export const bitwiseAnd = binaryOp("BitwiseAnd");
export const less = binaryOp("Less", "bool");
export const lessEqual = binaryOp("LessEqual", "bool");
export const greater = binaryOp("Greater", "bool");
export const greaterEqual = binaryOp("GreaterEqual", "bool");
export const equal = binaryOp("Equal", "bool");
export const notEqual = binaryOp("NotEqual", "bool");

export const logical = (op: "LogicalAnd" | "LogicalOr", a: GraphTensor, b: GraphTensor) =>
  a.node.graph.tensor(op, [a, b], {}, "bool", broadcastShape(op, a.shape, b.shape));
export const logicalNot = (x: GraphTensor): GraphTensor =>
  x.node.graph.tensor("LogicalNot", [x], {}, "bool", x.shape);

/** An op with one operand that keeps shape and type. */
export const unary = (op: string, x: GraphTensor): GraphTensor =>
  x.node.graph.tensor(op, [x], { T: type(x.dtype) }, x.dtype, x.shape);

/** [..., M, N] of a product. @throws E_GRAPH_SHAPE */
export function productShape(
  a: GraphTensor,
  b: GraphTensor,
  transposeA: boolean,
  transposeB: boolean,
): readonly number[] {
  const [m, ka] = ends(a.shape, transposeA);
  const [kb, n] = ends(b.shape, transposeB);
  if (ka !== kb) {
    throw new LockstepError("E_GRAPH_SHAPE", {
      op: "MatMul",
      expected: "equal inner dimensions",
      got: `[${a.shape.join(", ")}]${transposeA ? "^T" : ""} x [${b.shape.join(", ")}]${transposeB ? "^T" : ""}`,
    });
  }
  const batch = broadcastShape("BatchMatMulV2", a.shape.slice(0, -2), b.shape.slice(0, -2));
  return [...batch, m, n];
}

/**
 * Where the device has no kernels of a half type, a product of that type is one of float32, rounded: what the
 * kernels of others compute, to the order of their sums.
 */
export const matMul = (
  a: GraphTensor,
  b: GraphTensor,
  transposeA: boolean,
  transposeB: boolean,
): GraphTensor => {
  const shape = productShape(a, b, transposeA, transposeB);
  // A transposed operand is read as it lies.
  const source = b.node.op === "Transpose" ? b.node.inputs[0] : undefined;
  if (source !== undefined && b.shape.length === 2)
    return matMul(a, source, transposeA, !transposeB);
  if (a.dtype === b.dtype && !hasProducts(a.dtype)) {
    const wide = matMul(cast(a, "float32"), cast(b, "float32"), transposeA, transposeB);
    return cast(wide, a.dtype);
  }
  if (a.shape.length === 2 && b.shape.length === 2) {
    return a.node.graph.tensor(
      "MatMul",
      [a, b],
      { T: type(a.dtype), transpose_a: bool(transposeA), transpose_b: bool(transposeB) },
      a.dtype,
      shape,
    );
  }
  return a.node.graph.tensor(
    "BatchMatMulV2",
    [a, b],
    { T: type(a.dtype), adj_x: bool(transposeA), adj_y: bool(transposeB) },
    a.dtype,
    shape,
  );
};

/** The node that computes a product, before its result is rounded. */
export const productNode = (product: GraphTensor): GraphNode =>
  product.node.op === "Cast" ? (product.node.inputs[0] as GraphTensor).node : product.node;

/** The last two dimensions, swapped when transposed. */
function ends(shape: readonly number[], transposed: boolean): [number, number] {
  const rows = shape.at(-2) as number;
  const columns = shape.at(-1) as number;
  return transposed ? [columns, rows] : [rows, columns];
}

export function reduce(
  op: "Sum" | "Mean" | "Max" | "Min" | "Prod",
  x: GraphTensor,
  axes: readonly number[],
  keepDims: boolean,
): GraphTensor {
  if (axes.length === 0) return x;
  const graph = x.node.graph;
  const positive = axes.map((axis) => (axis < 0 ? axis + x.shape.length : axis));
  const shape = x.shape.flatMap((dim, axis) =>
    positive.includes(axis) ? (keepDims ? [1] : []) : [dim],
  );
  return graph.tensor(
    op,
    [x, ints(graph, positive)],
    { T: type(x.dtype), Tidx: int32, keep_dims: bool(keepDims) },
    x.dtype,
    shape,
  );
}

export function slice(
  x: GraphTensor,
  begin: readonly number[],
  size: readonly number[],
): GraphTensor {
  if (sameShape(x.shape, size)) return x;
  const graph = x.node.graph;
  return graph.tensor(
    "Slice",
    [x, ints(graph, begin), ints(graph, size)],
    { T: type(x.dtype), Index: int32 },
    x.dtype,
    size,
  );
}

export function concat(parts: readonly GraphTensor[], axis: number): GraphTensor {
  const first = parts[0] as GraphTensor;
  if (parts.length === 1) return first;
  const graph = first.node.graph;
  const shape = [...first.shape];
  shape[axis] = parts.reduce((total, part) => total + (part.shape[axis] as number), 0);
  return graph.tensor(
    "ConcatV2",
    [...parts, intScalar(graph, axis)],
    { T: type(first.dtype), N: int(parts.length), Tidx: int32 },
    first.dtype,
    shape,
  );
}

export function split(x: GraphTensor, numParts: number, axis: number): readonly GraphTensor[] {
  const graph = x.node.graph;
  const shape = [...x.shape];
  shape[axis] = (shape[axis] as number) / numParts;
  return graph.add(
    "Split",
    [intScalar(graph, axis), x],
    { T: type(x.dtype), num_split: int(numParts) },
    Array.from({ length: numParts }, () => ({ dtype: x.dtype, shape })),
  ).outputs;
}

export function gather(params: GraphTensor, indices: GraphTensor, axis: number): GraphTensor {
  const graph = params.node.graph;
  return graph.tensor(
    "GatherV2",
    [params, indices, intScalar(graph, axis)],
    { Tparams: type(params.dtype), Tindices: type(indices.dtype), Taxis: int32 },
    params.dtype,
    [...params.shape.slice(0, axis), ...indices.shape, ...params.shape.slice(axis + 1)],
  );
}

export function unsortedSegmentSum(
  data: GraphTensor,
  segmentIds: GraphTensor,
  numSegments: number,
): GraphTensor {
  const graph = data.node.graph;
  return graph.tensor(
    "UnsortedSegmentSum",
    [data, segmentIds, intScalar(graph, numSegments)],
    { T: type(data.dtype), Tindices: type(segmentIds.dtype), Tnumsegments: int32 },
    data.dtype,
    [numSegments, ...data.shape.slice(segmentIds.shape.length)],
  );
}

/** Adds rows to rows of a table, in their order; a row may be named more than once. */
export function tensorScatterAdd(
  table: GraphTensor,
  indices_M: GraphTensor,
  rows: GraphTensor,
): GraphTensor {
  return table.node.graph.tensor(
    "TensorScatterAdd",
    [table, reshape(indices_M, [...indices_M.shape, 1]), rows],
    { T: type(table.dtype), Tindices: type(indices_M.dtype) },
    table.dtype,
    table.shape,
  );
}

export const softmax = (logits: GraphTensor): GraphTensor => unary("Softmax", logits);
export const logSoftmax = (logits: GraphTensor): GraphTensor => unary("LogSoftmax", logits);

export const select = (condition: GraphTensor, a: GraphTensor, b: GraphTensor): GraphTensor =>
  a.node.graph.tensor(
    "SelectV2",
    [condition, a, b],
    { T: type(a.dtype) },
    a.dtype,
    broadcastShape("SelectV2", condition.shape, broadcastShape("SelectV2", a.shape, b.shape)),
  );

export function fill(value: GraphTensor, shape: readonly number[]): GraphTensor {
  const graph = value.node.graph;
  return graph.tensor(
    "Fill",
    [ints(graph, shape), value],
    { T: type(value.dtype), index_type: int32 },
    value.dtype,
    shape,
  );
}

export function tile(x: GraphTensor, multiples: readonly number[]): GraphTensor {
  if (multiples.every((multiple) => multiple === 1)) return x;
  const graph = x.node.graph;
  return graph.tensor(
    "Tile",
    [x, ints(graph, multiples)],
    { T: type(x.dtype), Tmultiples: int32 },
    x.dtype,
    x.shape.map((dim, axis) => dim * (multiples[axis] as number)),
  );
}

export function broadcastTo(x: GraphTensor, shape: readonly number[]): GraphTensor {
  if (sameShape(x.shape, shape)) return x;
  const graph = x.node.graph;
  return graph.tensor(
    "BroadcastTo",
    [x, ints(graph, shape)],
    { T: type(x.dtype), Tidx: int32 },
    x.dtype,
    shape,
  );
}

export function pad(
  x: GraphTensor,
  paddings: readonly (readonly [number, number])[],
  value: number,
): GraphTensor {
  if (paddings.every(([before, after]) => before === 0 && after === 0)) return x;
  const graph = x.node.graph;
  const table = constant(graph, Int32Array.from(paddings.flat()), "int32", [paddings.length, 2]);
  const fillValue = x.dtype === "int32" ? intScalar(graph, value) : scalar(graph, value, x.dtype);
  return graph.tensor(
    "PadV2",
    [x, table, fillValue],
    { T: type(x.dtype), Tpaddings: int32 },
    x.dtype,
    x.shape.map(
      (dim, axis) =>
        dim +
        (paddings[axis] as readonly [number, number])[0] +
        (paddings[axis] as readonly [number, number])[1],
    ),
  );
}

export function oneHot(
  indices: GraphTensor,
  depth: number,
  onValue: GraphTensor,
  offValue: GraphTensor,
): GraphTensor {
  const graph = indices.node.graph;
  return graph.tensor(
    "OneHot",
    [indices, intScalar(graph, depth), onValue, offValue],
    { T: type(onValue.dtype), TI: type(indices.dtype), axis: int(-1) },
    onValue.dtype,
    [...indices.shape, depth],
  );
}

/** Running sums along an axis. */
export function cumsum(
  x: GraphTensor,
  axis: number,
  exclusive: boolean,
  reverse: boolean,
): GraphTensor {
  const graph = x.node.graph;
  return graph.tensor(
    "Cumsum",
    [x, intScalar(graph, axis)],
    { T: type(x.dtype), Tidx: int32, exclusive: bool(exclusive), reverse: bool(reverse) },
    x.dtype,
    x.shape,
  );
}

export function argMax(x: GraphTensor, axis: number): GraphTensor {
  const graph = x.node.graph;
  return graph.tensor(
    "ArgMax",
    [x, intScalar(graph, axis)],
    { T: type(x.dtype), Tidx: int32, output_type: int32 },
    "int32",
    x.shape.filter((_, index) => index !== axis),
  );
}

export const addN = (parts: readonly GraphTensor[]): GraphTensor => {
  const first = parts[0] as GraphTensor;
  if (parts.length === 1) return first;
  return first.node.graph.tensor(
    "AddN",
    parts,
    { T: type(first.dtype), N: int(parts.length) },
    first.dtype,
    first.shape,
  );
};

/** Passes the value through, after the control inputs have run. */
export const identity = (
  x: GraphTensor,
  options: { readonly name?: string; readonly controlInputs?: readonly GraphNode[] } = {},
): GraphTensor =>
  x.node.graph.tensor("Identity", [x], { T: type(x.dtype) }, x.dtype, x.shape, options);
