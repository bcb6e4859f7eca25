import type { GraphBuilder, GraphNode, GraphTensor } from "./builder.js";

interface Block {
  /** Copies of the block's nodes, made as backward asks for them. */
  readonly copies: Map<GraphNode, GraphNode>;
  /** Computes the gradient of the block's output; absent until backward reaches the block. */
  gradient?: GraphNode;
}

/**
 * Activation checkpointing: backward gets copies of a block's nodes instead of the nodes, so that their
 * values live only from the block's input to its output, and are there again when backward needs them.
 *
 * The copies wait for the gradient of the block's output by control edges. Without these TensorFlow
 * would compute them as soon as their inputs are there, in forward; and they make the copies other
 * nodes than those that they copy.
 */
export class Recomputation {
  readonly #graph: GraphBuilder;
  readonly #open: { readonly input: GraphNode; readonly numNodes: number }[] = [];
  readonly #blockByOutput = new Map<GraphNode, Block>();
  /** Nodes that depend on their block's input, except the output. */
  readonly #blockByNode = new Map<GraphNode, Block>();

  constructor(graph: GraphBuilder) {
    this.#graph = graph;
  }

  startBlock(input: GraphTensor): void {
    this.#open.push({ input: input.node, numNodes: this.#graph.nodes.length });
  }

  endBlock(output: GraphTensor): void {
    const opened = this.#open.pop();
    if (opened === undefined) return;
    const block: Block = { copies: new Map() };
    this.#blockByOutput.set(output.node, block);
    const dependent = new Set<GraphNode>([opened.input]);
    for (const node of this.#graph.nodes.slice(opened.numNodes)) {
      if (!node.inputs.some((input) => dependent.has(input.node))) continue;
      dependent.add(node);
      if (node !== output.node) this.#blockByNode.set(node, block);
    }
  }

  /** From here on the nodes of the block are taken to be gone. */
  startBackward(output: GraphTensor, gradient: GraphTensor): void {
    const block = this.#blockByOutput.get(output.node);
    if (block !== undefined) block.gradient = gradient.node;
  }

  /** The node, or its copy where backward has reached its block. */
  current(node: GraphNode): GraphNode {
    const block = this.#blockByNode.get(node);
    return block?.gradient === undefined ? node : this.#copy(node, block, block.gradient);
  }

  currentTensor(tensor: GraphTensor): GraphTensor {
    return this.current(tensor.node).outputs[tensor.index] as GraphTensor;
  }

  #copy(node: GraphNode, block: Block, gradient: GraphNode): GraphNode {
    const known = block.copies.get(node);
    if (known !== undefined) return known;
    const inputs = node.inputs.map((input) => this.currentTensor(input));
    const waits = inputs.every((input, index) => input === node.inputs[index]);
    const copy = this.#graph.add(node.op, inputs, node.attrs, node.outputs, {
      controlInputs: [...node.controlInputs, ...(waits ? [gradient] : [])],
    });
    block.copies.set(node, copy);
    return copy;
  }
}
