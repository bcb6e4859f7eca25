import type { GraphBuilder, GraphNode } from "#lib/graph/builder";
import { numElements } from "#lib/graph/tf-ops";

/** What bench/peers/profile_graph.py measured of a node, by the node's name. */
export type NodeTimes = Readonly<Record<string, { readonly op: string; readonly us: number }>>;

export interface TimedKind {
  readonly kind: string;
  readonly numNodes: number;
  readonly milliseconds: number;
  /** Multiplications and additions; 0 for what is no product. */
  readonly flops: number;
}

const products = new Set(["MatMul", "BatchMatMulV2"]);

/** Times by kind of node, longest first: an op, or a function that XLA compiles. */
export const timesByKind = (graph: GraphBuilder, times: NodeTimes): readonly TimedKind[] =>
  grouped(graph, times, (node) => (node === undefined ? undefined : kindOf(node)));

/** Times of matrix products by what they multiply, longest first. */
export const timesByProduct = (graph: GraphBuilder, times: NodeTimes): readonly TimedKind[] =>
  grouped(graph, times, (node) =>
    node !== undefined && products.has(node.op) ? productText(node) : undefined,
  );

export const isProduct = ({ kind }: TimedKind): boolean => products.has(kind);

function grouped(
  graph: GraphBuilder,
  times: NodeTimes,
  keyOf: (node: GraphNode | undefined) => string | undefined,
): readonly TimedKind[] {
  const nodes = new Map(graph.nodes.map((node) => [node.name, node]));
  const kinds = new Map<string, TimedKind>();
  for (const [name, { us }] of Object.entries(times)) {
    const node = nodes.get(name);
    const kind = keyOf(node);
    if (node === undefined || kind === undefined) continue;
    const known = kinds.get(kind) ?? { kind, numNodes: 0, milliseconds: 0, flops: 0 };
    kinds.set(kind, {
      kind,
      numNodes: known.numNodes + 1,
      milliseconds: known.milliseconds + us / 1000,
      flops: known.flops + flopsOf(node),
    });
  }
  return [...kinds.values()].sort((a, b) => b.milliseconds - a.milliseconds);
}

function kindOf(node: GraphNode): string {
  const called = node.attrs["f"];
  if (called?.kind !== "function") return node.op;
  return `XLA ${called.value.replace(/_f\d+$/, "")}`;
}

/** Whether an operand is read transposed; MatMul and BatchMatMul call it by different names. */
function isTransposed(node: GraphNode, operand: "a" | "b"): boolean {
  const attr = node.attrs[operand === "a" ? "transpose_a" : "transpose_b"];
  const batched = node.attrs[operand === "a" ? "adj_x" : "adj_y"];
  const flag = attr ?? batched;
  return flag?.kind === "bool" && flag.value;
}

function productText(node: GraphNode): string {
  const operand = (index: 0 | 1, name: "a" | "b"): string =>
    `[${node.inputs[index]?.shape.join(", ")}]${isTransposed(node, name) ? "^T" : ""}`;
  return `${operand(0, "a")} x ${operand(1, "b")}`;
}

function flopsOf(node: GraphNode): number {
  if (!products.has(node.op)) return 0;
  const [a] = node.inputs;
  const [result] = node.outputs;
  if (a === undefined || result === undefined) return 0;
  return 2 * numElements(result.shape) * (a.shape.at(isTransposed(node, "a") ? -2 : -1) as number);
}
