import { type GraphBuilder, type GraphNode, type GraphTensor, neededNodes } from "./builder.js";

interface Block {
  /** Copies of the block's nodes, made as backward asks for them. */
  readonly copies: Map<GraphNode, GraphNode>;
  /** Computes the gradient of the block's output; absent until backward reaches the block. */
  gradient?: GraphNode;
  /** Nodes of the graph when backward reached the block. */
  numNodes: number;
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
  /** In the order in which backward reached them. */
  readonly #reached: Block[] = [];
  readonly #open: { readonly input: GraphNode; readonly numNodes: number }[] = [];
  readonly #blockByOutput = new Map<GraphNode, Block>();
  /** Nodes that need their block's input, by data or by control edges, except the output. */
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
    const block: Block = { copies: new Map(), numNodes: 0 };
    this.#blockByOutput.set(output.node, block);
    const dependent = new Set<GraphNode>([opened.input]);
    for (const node of this.#graph.nodes.slice(opened.numNodes)) {
      // What only waits, as random bits do, would be kept otherwise.
      const needs = [...node.inputs.map((input) => input.node), ...node.controlInputs];
      if (!needs.some((need) => dependent.has(need))) continue;
      dependent.add(node);
      if (node !== output.node) this.#blockByNode.set(node, block);
    }
  }

  /** From here on the nodes of the block are taken to be gone. */
  startBackward(output: GraphTensor, gradient: GraphTensor): void {
    const block = this.#blockByOutput.get(output.node);
    if (block === undefined) return;
    block.gradient = gradient.node;
    block.numNodes = this.#graph.nodes.length;
    this.#reached.push(block);
  }

  /**
   * Lets a block's copies wait for the whole backward of the block before. TensorFlow may put off what
   * nothing waits for, the gradients of weights and biases; what they read would then stay, for all blocks.
   *
   * @param results what backward gives; nothing else is waited for
   */
  orderBlocks(results: readonly GraphTensor[]): void {
    const needed = neededNodes(results.map(({ node }) => node));
    this.#reached.slice(1).forEach((block, index) => {
      const before = this.#reached[index] as Block;
      const backward = this.#graph.nodes
        .slice(before.numNodes, block.numNodes)
        .filter((node) => needed.has(node));
      const read = new Set(backward.flatMap((node) => node.inputs.map((input) => input.node)));
      const last = backward.filter((node) => !read.has(node));
      for (const copy of block.copies.values()) {
        if (!copy.controlInputs.has(block.gradient as GraphNode)) continue;
        for (const node of last) copy.controlInputs.add(node);
      }
    });
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
    const awaited = [...node.controlInputs];
    const controlInputs = awaited.map((each) => this.current(each));
    const isFirst =
      inputs.every((input, index) => input === node.inputs[index]) &&
      controlInputs.every((each, index) => each === awaited[index]);
    const copy = this.#graph.add(node.op, inputs, node.attrs, node.outputs, {
      controlInputs: [...controlInputs, ...(isFirst ? [gradient] : [])],
    });
    block.copies.set(node, copy);
    return copy;
  }
}
