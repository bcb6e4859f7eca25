import type { GraphAttrs, GraphBuilder, GraphDtype, GraphNode, GraphTensor } from "./builder.js";
import { type } from "./tf-ops.js";

/** A variable of the session. Its handle is a node, its value lives as long as the session. */
export interface Variable {
  readonly handle: GraphTensor;
  readonly dtype: GraphDtype;
  readonly shape: readonly number[];
}

export function variable(
  graph: GraphBuilder,
  name: string,
  dtype: GraphDtype,
  shape: readonly number[],
): Variable {
  const attrs: GraphAttrs = {
    dtype: type(dtype),
    shape: { kind: "shape", value: shape },
    // Without a shared name TensorFlow gives every variable of the graph the same resource.
    shared_name: { kind: "string", value: name },
  };
  const handle = graph.tensor("VarHandleOp", [], attrs, "resource", [], { name, stateful: true });
  return { handle, dtype, shape };
}

/**
 * Reads the variable. Reads at one place of a program may share a node; a read that must see a write
 * names that write in `after`.
 */
export function readVariable(v: Variable, after: readonly GraphNode[] = []): GraphTensor {
  return v.handle.node.graph.tensor(
    "ReadVariableOp",
    [v.handle],
    { dtype: type(v.dtype) },
    v.dtype,
    v.shape,
    { controlInputs: after },
  );
}

export const assign = (v: Variable, value: GraphTensor): GraphNode =>
  v.handle.node.graph.add("AssignVariableOp", [v.handle, value], { dtype: type(v.dtype) }, [], {
    stateful: true,
  });

export const assignAdd = (v: Variable, value: GraphTensor): GraphNode =>
  v.handle.node.graph.add("AssignAddVariableOp", [v.handle, value], { dtype: type(v.dtype) }, [], {
    stateful: true,
  });

/** Writes rows of the first dimension: v[indices[i]] = rows[i]. */
export const scatterUpdate = (v: Variable, indices: GraphTensor, rows: GraphTensor): GraphNode =>
  v.handle.node.graph.add(
    "ResourceScatterUpdate",
    [v.handle, indices, rows],
    { dtype: type(v.dtype), Tindices: type(indices.dtype) },
    [],
    { stateful: true },
  );

/**
 * Writes rows of the first dimension in the variable's own memory and returns the whole, which is that
 * memory: a read after a `scatterUpdate` copies all of it. For a variable whose memory nothing else holds,
 * and that nobody else reads while the program runs. On a CPU.
 */
export function updateInPlace(v: Variable, indices: GraphTensor, rows: GraphTensor): GraphTensor {
  const inputs = [readVariable(v), indices, rows];
  const options = { stateful: true };
  return rows.node.graph.tensor(
    "InplaceUpdate",
    inputs,
    { T: type(v.dtype) },
    v.dtype,
    v.shape,
    options,
  );
}

/**
 * A copy in memory of TensorFlow's own. A fed array that happens to be 64-byte aligned is borrowed,
 * and a variable assigned from it would change with the array.
 */
export const deepCopy = (x: GraphTensor): GraphTensor =>
  x.node.graph.tensor("DeepCopy", [x], { T: type(x.dtype) }, x.dtype, x.shape, { stateful: true });
