import { type GraphDtype, type GraphNode, type GraphTensor, neededNodes } from "./builder.js";
import { type Block, MemoryPool } from "./memory-pool.js";
import { numElements } from "./tf-ops.js";

const elementBytes: Readonly<Record<GraphDtype, number>> = {
  float64: 8,
  int64: 8,
  uint64: 8,
  float32: 4,
  int32: 4,
  bfloat16: 2,
  float16: 2,
  uint16: 2,
  uint8: 1,
  bool: 1,
  resource: 0,
};

const tensorBytes = ({ dtype, shape }: Pick<GraphTensor, "dtype" | "shape">): number =>
  numElements(shape) * elementBytes[dtype];

/** Ops whose output is their first input's memory. */
const viewOps = new Set(["Reshape", "Identity", "Bitcast"]);
/** Ops whose output is memory that exists before the program runs. */
const storedOps = new Set(["Const", "Placeholder", "ReadVariableOp", "VarHandleOp"]);
/** Ops that write into an input of their type and size that nobody else needs. */
const inPlaceOps = new Set(["AddV2", "Sub", "Mul", "AddN", "Neg", "Softmax", "PadV2"]);

/** What becomes of the memory of a program's values, in order. */
interface MemoryEvents {
  allocate(source: GraphTensor, numBytes: number): void;
  /** The value has another's memory from now on. */
  takeOver(source: GraphTensor, from: GraphTensor): void;
  free(source: GraphTensor): void;
}

/**
 * Bytes that TensorFlow's pool takes from the system for weights and for programs that run one after the
 * other: a value's memory is the best that is free, and what was in use once stays with the process.
 *
 * @param variableBytes of each variable, in the order in which they get their values
 * @param reloadBytes most bytes of variables that are written anew at once, beside their values until then
 */
export function pooledBytes(
  variableBytes: readonly number[],
  reloadBytes: number,
  programs: readonly (readonly GraphTensor[])[],
): number {
  const pool = new MemoryPool();
  for (const numBytes of variableBytes) pool.allocate(numBytes);
  if (reloadBytes > 0) pool.free(pool.allocate(reloadBytes), reloadBytes);
  for (const fetches of programs) {
    const held = new Map<GraphTensor, { readonly block: Block | undefined; numBytes: number }>();
    const free = (source: GraphTensor): void => {
      const memory = held.get(source);
      held.delete(source);
      if (memory !== undefined) pool.free(memory.block, memory.numBytes);
    };
    followValues(fetches, {
      allocate: (source, numBytes) =>
        held.set(source, { block: pool.allocate(numBytes), numBytes }),
      takeOver: (source, from) => {
        const memory = held.get(from);
        held.delete(from);
        if (memory !== undefined) held.set(source, memory);
      },
      free,
    });
    // The caller has read the fetches.
    for (const source of [...held.keys()]) free(source);
  }
  return pool.usedBytes;
}

export function followValues(fetches: readonly GraphTensor[], events: MemoryEvents): void {
  const order = executionOrder(fetches.map(({ node }) => node));
  const numUses = new Map<GraphTensor, number>();
  const count = (tensor: GraphTensor): void => {
    const source = sourceOf(tensor);
    numUses.set(source, (numUses.get(source) ?? 0) + 1);
  };
  for (const node of order) if (!viewOps.has(node.op)) node.inputs.forEach(count);
  // A fetch is never free.
  fetches.forEach(count);
  for (const node of order) {
    if (storedOps.has(node.op) || viewOps.has(node.op)) continue;
    const sources = node.inputs.map(sourceOf);
    const bytes = node.outputs.reduce((sum, output) => sum + tensorBytes(output), 0);
    const reused = inPlaceOps.has(node.op)
      ? sources.find((source) => numUses.get(source) === 1 && heldBytes(source) === bytes)
      : undefined;
    const [output] = node.outputs;
    if (reused !== undefined && output !== undefined) events.takeOver(output, reused);
    else for (const made of node.outputs) events.allocate(made, tensorBytes(made));
    for (const made of node.outputs) if (!numUses.has(made)) events.free(made);
    for (const source of sources) {
      const rest = (numUses.get(source) as number) - 1;
      numUses.set(source, rest);
      if (rest === 0 && source !== reused && heldBytes(source) > 0) events.free(source);
    }
  }
}

/** Bytes of a value that the program's run adds to the process. */
const heldBytes = (source: GraphTensor): number =>
  storedOps.has(source.node.op) ? 0 : tensorBytes(source);

function sourceOf(tensor: GraphTensor): GraphTensor {
  let source = tensor;
  while (viewOps.has(source.node.op)) source = source.node.inputs[0] as GraphTensor;
  return source;
}

/**
 * All that `ends` need, each node after its inputs, in the order of creation; but the only one that
 * waits for a node comes right behind it, as an accumulator's sum behind the gradient.
 */
function executionOrder(ends: readonly GraphNode[]): readonly GraphNode[] {
  const all = neededNodes(ends);
  const needed = (ends[0]?.graph.nodes ?? []).filter((node) => all.has(node));
  const consumers = new Map<GraphNode, GraphNode[]>(needed.map((node) => [node, []]));
  for (const node of needed) {
    for (const input of new Set(inputsOf(node))) consumers.get(input)?.push(node);
  }
  const order = new Set<GraphNode>();
  const isReady = (node: GraphNode): boolean => inputsOf(node).every((input) => order.has(input));
  // Stored values first: nothing waits for them.
  for (const node of needed) if (storedOps.has(node.op) && isReady(node)) order.add(node);
  const stack: GraphNode[] = [];
  for (const start of needed) {
    stack.push(start);
    for (let node = stack.at(-1); node !== undefined; node = stack.at(-1)) {
      const missing = inputsOf(node).filter((input) => !order.has(input));
      if (missing.length > 0) {
        stack.push(...missing);
        continue;
      }
      stack.pop();
      for (let next: GraphNode | undefined = node; next !== undefined && isReady(next); ) {
        order.add(next);
        const waiting: readonly GraphNode[] = consumers.get(next) ?? [];
        next = waiting.length === 1 && !order.has(waiting[0] as GraphNode) ? waiting[0] : undefined;
      }
    }
  }
  return [...order];
}

const inputsOf = (node: GraphNode): GraphNode[] => [
  ...node.inputs.map((input) => input.node),
  ...node.controlInputs,
];
