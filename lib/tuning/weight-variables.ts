import { LockstepError } from "#lib/core/errors/index";
import type { GraphBuilder, GraphDtype, GraphTensor } from "#lib/graph/builder";
import type { Autocast } from "#lib/graph/autocast";
import { type Program, Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { symbolicTensor } from "#lib/graph/tracing-backend";
import { assign, deepCopy, readVariable, type Variable, variable } from "#lib/graph/variables";
import type { WeightSpec, Weights } from "#lib/models/index";

/** A model's weights as variables of a graph, filled one by one from float32 values. */
export class WeightVariables {
  readonly #variables: ReadonlyMap<string, Variable>;
  readonly #turned = new Set<string>();
  readonly #loads: ReadonlyMap<string, Program>;

  /**
   * @param outputMajor keeps projections that are stored [in, out] as [out, in]: a product of few rows
   *   reads them faster so. For graphs without gradients.
   */
  constructor(
    graph: GraphBuilder,
    specs: readonly WeightSpec[],
    autocast: Autocast,
    { outputMajor = false }: { readonly outputMajor?: boolean } = {},
  ) {
    const variables = new Map<string, Variable>();
    const loads = new Map<string, Program>();
    for (const { name, shape, isInputMajor = false } of specs) {
      const isTurned = outputMajor && isInputMajor;
      if (isTurned) this.#turned.add(name);
      // Matrices in compute type; vectors enter norms and sums and stay float32.
      const dtype = shape.length >= 2 ? autocast.compute : "float32";
      const target = variable(
        graph,
        `weight/${name}`,
        dtype,
        isTurned ? [...shape].reverse() : shape,
      );
      const feed = op.placeholder(graph, `feed/weight/${name}`, "float32", shape);
      const owned = ownedValue(feed, dtype, isTurned);
      const done = op.identity(op.intScalar(graph, 1), {
        name: `fetch/weight/${name}`,
        controlInputs: [assign(target, owned)],
      });
      loads.set(name, { name: `load/${name}`, feeds: { values: feed }, fetches: { done } });
      variables.set(name, target);
    }
    this.#variables = variables;
    this.#loads = loads;
  }

  /** The weights as tensors of the graph, inside `trace`. */
  readonly lookup: Weights = (name) => {
    const found = this.#variables.get(name);
    if (found !== undefined) {
      const value = readVariable(found);
      return symbolicTensor(this.#turned.has(name) ? op.transpose(value, [1, 0]) : value);
    }
    throw new LockstepError("E_MODEL_TENSOR_MISSING", {
      tensor: name,
      expectedShape: "its configuration's",
      got: "no such tensor among the model's weights",
    });
  };

  /** A session over the graph, complete by now, with the weights in it. */
  async open(graph: GraphBuilder, read: (name: string) => Promise<Float32Array>): Promise<Session> {
    const session = new Session(graph);
    try {
      await this.load(session, read);
    } catch (error) {
      session.close();
      throw error;
    }
    return session;
  }

  /** Reads and stores one tensor after the other, so that only one is in memory twice. */
  async load(session: Session, read: (name: string) => Promise<Float32Array>): Promise<void> {
    for (const [name, program] of this.#loads) session.run(program, { values: await read(name) });
  }
}

/** In memory of TensorFlow's own, which a transposition or a cast brings too. */
function ownedValue(feed: GraphTensor, dtype: GraphDtype, isTurned: boolean): GraphTensor {
  if (isTurned) return op.transpose(op.cast(feed, dtype), [1, 0]);
  return dtype === "float32" ? deepCopy(feed) : op.cast(feed, dtype);
}
