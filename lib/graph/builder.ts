import { createHash } from "node:crypto";
import { LockstepError } from "#lib/core/errors/index";

/** Element types of a graph; tfjs sees all floating types as float32 and all integers as int32. */
export type GraphDtype =
  | "float32"
  | "bfloat16"
  | "float16"
  | "float64"
  | "int32"
  | "int64"
  | "uint8"
  | "uint16"
  | "uint64"
  | "bool"
  | "resource";

export type GraphAttr =
  | { readonly kind: "type"; readonly value: GraphDtype }
  | { readonly kind: "int"; readonly value: number }
  | { readonly kind: "float"; readonly value: number }
  | { readonly kind: "bool"; readonly value: boolean }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "shape"; readonly value: readonly number[] }
  | { readonly kind: "ints"; readonly value: readonly number[] }
  | { readonly kind: "types"; readonly value: readonly GraphDtype[] }
  | { readonly kind: "strings"; readonly value: readonly string[] }
  | { readonly kind: "function"; readonly value: string }
  | {
      readonly kind: "tensor";
      readonly dtype: GraphDtype;
      readonly shape: readonly number[];
      readonly bytes: Uint8Array;
    };

export type GraphAttrs = Readonly<Record<string, GraphAttr>>;

export interface GraphTensor {
  readonly node: GraphNode;
  readonly index: number;
  readonly dtype: GraphDtype;
  readonly shape: readonly number[];
}

export interface GraphNode {
  readonly graph: GraphBuilder;
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly GraphTensor[];
  /** Nodes that must have run before this one; may grow after the node was made. */
  readonly controlInputs: Set<GraphNode>;
  readonly attrs: GraphAttrs;
  readonly outputs: readonly GraphTensor[];
}

/** A function of the graph's library, with a body of its own. */
export interface GraphFunction {
  readonly name: string;
  readonly body: GraphBuilder;
  readonly args: readonly GraphTensor[];
  readonly results: readonly GraphTensor[];
}

interface NodeOptions {
  /** A fixed name; without one the node is called by its op and a number. */
  readonly name?: string;
  readonly controlInputs?: readonly GraphNode[];
  /** A node with an effect is never merged with an equal one. */
  readonly stateful?: boolean;
}

/** Largest constant whose bytes stand in a node's key as they are; longer ones by their SHA-256. */
const maxLiteralKeyBytes = 64;

/**
 * An append-only TensorFlow graph. Equal pure nodes are made once (hash-consing on op, inputs and
 * attributes), so a gradient may write down a forward value again and gets the node that is there.
 */
export class GraphBuilder {
  readonly #nodes: GraphNode[] = [];
  readonly #byKey = new Map<string, GraphNode>();
  readonly #names = new Set<string>();
  readonly #numByOp = new Map<string, number>();
  readonly #functionByText = new Map<string, GraphFunction>();
  /** What is taken for a node that is there already: the node itself, or its copy in a recomputation. */
  #substitute: (known: GraphNode) => GraphNode = (known) => known;

  get nodes(): readonly GraphNode[] {
    return this.#nodes;
  }

  get functions(): readonly GraphFunction[] {
    return [...this.#functionByText.values()];
  }

  /** A function for nodes to call; functions of one name and text are one. */
  addFunction(
    name: string,
    body: GraphBuilder,
    args: readonly GraphTensor[],
    results: readonly GraphTensor[],
  ): GraphFunction {
    const text = `${name}\n${body.print()}\n-> ${results.map(refText).join(", ")}`;
    const known = this.#functionByText.get(text);
    if (known !== undefined) return known;
    const added = { name: `${name}_f${this.#functionByText.size}`, body, args, results };
    this.#functionByText.set(text, added);
    return added;
  }

  add(
    op: string,
    inputs: readonly GraphTensor[],
    attrs: GraphAttrs,
    outputs: readonly { readonly dtype: GraphDtype; readonly shape: readonly number[] }[],
    options: NodeOptions = {},
  ): GraphNode {
    const pure = options.stateful !== true && options.name === undefined;
    const key = pure ? nodeKey(op, inputs, attrs, options.controlInputs ?? []) : "";
    const known = pure ? this.#byKey.get(key) : undefined;
    if (known !== undefined) return this.#substitute(known);
    const name = options.name ?? this.#nextName(op);
    if (this.#names.has(name)) throw new LockstepError("E_GRAPH_DUPLICATE_NODE", { node: name });
    const outputTensors: GraphTensor[] = [];
    const node: GraphNode = {
      graph: this,
      name,
      op,
      inputs,
      controlInputs: new Set(options.controlInputs),
      attrs,
      outputs: outputTensors,
    };
    outputs.forEach((output, index) => {
      outputTensors.push({ node, index, dtype: output.dtype, shape: output.shape });
    });
    this.#names.add(name);
    this.#nodes.push(node);
    if (pure) this.#byKey.set(key, node);
    return node;
  }

  /** Runs `body` with other nodes in the place of those that are there already. */
  substituting<R>(substitute: (known: GraphNode) => GraphNode, body: () => R): R {
    const outer = this.#substitute;
    this.#substitute = substitute;
    try {
      return body();
    } finally {
      this.#substitute = outer;
    }
  }

  /** As `add` for a node with one output. */
  tensor(
    op: string,
    inputs: readonly GraphTensor[],
    attrs: GraphAttrs,
    dtype: GraphDtype,
    shape: readonly number[],
    options: NodeOptions = {},
  ): GraphTensor {
    return this.add(op, inputs, attrs, [{ dtype, shape }], options).outputs[0] as GraphTensor;
  }

  /** The stable text of the graph: a line a node, in order of creation, then its functions. */
  print(): string {
    return [...this.#nodes.map(printNode), ...this.functions.map(printFunction)].join("\n");
  }

  #nextName(op: string): string {
    // A node's name, unlike an op's, does not begin with an underscore.
    const stem = op.replace(/^_+/, "");
    let name: string;
    do {
      const number = this.#numByOp.get(stem) ?? 0;
      this.#numByOp.set(stem, number + 1);
      name = `${stem}_${number}`;
    } while (this.#names.has(name));
    return name;
  }
}

/** The nodes that `ends` need, by data or by control edges, and the ends. */
export function neededNodes(ends: readonly GraphNode[]): ReadonlySet<GraphNode> {
  const needed = new Set<GraphNode>();
  const pending = [...ends];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (needed.has(node)) continue;
    needed.add(node);
    for (const input of node.inputs) pending.push(input.node);
    pending.push(...node.controlInputs);
  }
  return needed;
}

/** Whether `node` needs `ancestor`, by data or by control edges. */
export function dependsOn(node: GraphNode, ancestor: GraphNode): boolean {
  const seen = new Set<GraphNode>();
  const pending = [node];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (next === ancestor) return true;
    if (seen.has(next)) continue;
    seen.add(next);
    for (const input of next.inputs) pending.push(input.node);
    for (const control of next.controlInputs) pending.push(control);
  }
  return false;
}

function refText(tensor: GraphTensor): string {
  return tensor.index === 0 ? tensor.node.name : `${tensor.node.name}:${tensor.index}`;
}

function nodeKey(
  op: string,
  inputs: readonly GraphTensor[],
  attrs: GraphAttrs,
  controlInputs: readonly GraphNode[],
): string {
  const attrTexts = Object.keys(attrs)
    .sort()
    .map((name) => `${name}=${attrText(attrs[name] as GraphAttr)}`);
  return [
    op,
    inputs.map(refText).join(","),
    controlInputs.map((node) => `^${node.name}`).join(","),
    attrTexts.join(";"),
  ].join("|");
}

function attrText(attr: GraphAttr): string {
  switch (attr.kind) {
    case "tensor": {
      const bytes = Buffer.from(attr.bytes.buffer, attr.bytes.byteOffset, attr.bytes.byteLength);
      const content =
        bytes.length <= maxLiteralKeyBytes
          ? bytes.toString("hex")
          : `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
      return `${attr.dtype}[${attr.shape.join(",")}]#${content}`;
    }
    case "shape":
    case "ints":
    case "types":
    case "strings":
      return `[${attr.value.join(",")}]`;
    case "string":
      return JSON.stringify(attr.value);
    default:
      return String(attr.value);
  }
}

function printNode(node: GraphNode): string {
  const attrs = Object.keys(node.attrs)
    .sort()
    .map((name) => ` ${name}=${attrText(node.attrs[name] as GraphAttr)}`)
    .join("");
  const controls = [...node.controlInputs].map((control) => `^${control.name}`);
  const types = node.outputs.map((output) => `${output.dtype}[${output.shape.join(",")}]`);
  return `${node.name}: ${types.join(", ")} = ${node.op}(${[...node.inputs.map(refText), ...controls].join(", ")})${attrs}`;
}

function printFunction({ name, body, results }: GraphFunction): string {
  const lines = body
    .print()
    .split("\n")
    .map((line) => `  ${line}`);
  return [`function ${name}`, ...lines, `  -> ${results.map(refText).join(", ")}`].join("\n");
}
