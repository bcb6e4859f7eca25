import * as tf from "@tensorflow/tfjs-core";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { type Program, Session, type TensorData } from "#lib/graph/session";
import { identity, placeholder } from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";

/** A value that goes into a compiled function. */
export interface Argument {
  readonly data: Float32Array | Int32Array;
  readonly shape: readonly number[];
}

/** What a compiled function gives back. */
interface Result {
  readonly data: TensorData;
  readonly shape: readonly number[];
}

interface Compiled {
  readonly session: Session;
  readonly program: Program;
}

/** Compiled programs by their whole text, so that two equal programs share a session. */
const compiledByText = new Map<string, Compiled>();

export const numCompiledFunctions = (): number => compiledByText.size;

/**
 * Makes tfjs code a function that runs as one TensorFlow graph. It is traced once for each
 * combination of shapes and types, and has no state.
 */
export function compileFunction(
  fn: (...args: tf.Tensor[]) => tf.Tensor | readonly tf.Tensor[],
  autocast: Autocast = { compute: "float32" },
): (...args: Argument[]) => Result[] {
  return (...args) => {
    const { graph, program } = traceFunction(fn, args, autocast);
    const text = `${graph.print()}\n-> ${Object.values(program.fetches)
      .map((fetch) => fetch.node.name)
      .join(", ")}`;
    let compiled = compiledByText.get(text);
    if (compiled === undefined) {
      compiled = { session: new Session(graph), program };
      compiledByText.set(text, compiled);
    }
    const outputs = compiled.session.run(
      compiled.program,
      Object.fromEntries(args.map((arg, index) => [`arg${index}`, arg.data])),
    );
    return Object.entries(compiled.program.fetches).map(([name, tensor]) => ({
      data: outputs[name] as TensorData,
      shape: tensor.shape,
    }));
  };
}

/** Traces tfjs code with a placeholder for each argument; floating results come out as float32. */
export function traceFunction(
  fn: (...args: tf.Tensor[]) => tf.Tensor | readonly tf.Tensor[],
  args: readonly Argument[],
  autocast: Autocast,
): { readonly graph: GraphBuilder; readonly program: Program } {
  const graph = new GraphBuilder();
  const feeds = args.map((arg, index) =>
    placeholder(
      graph,
      `arg${index}`,
      arg.data instanceof Int32Array ? "int32" : "float32",
      arg.shape,
    ),
  );
  const results = trace({ graph, autocast }, () => {
    const result = fn(...feeds.map((feed) => symbolicTensor(feed)));
    const list = Array.isArray(result) ? (result as tf.Tensor[]) : [result as tf.Tensor];
    return list.map((tensor) =>
      graphTensor(tensor.dtype === "float32" ? tf.cast(tensor, "float32") : tensor),
    );
  });
  return {
    graph,
    program: {
      name: fn.name === "" ? "function" : fn.name,
      feeds: Object.fromEntries(feeds.map((feed, index) => [`arg${index}`, feed])),
      // A fetch of its own for each result: TensorFlow takes no node twice.
      fetches: Object.fromEntries(
        results.map((result, index) => [
          `result${index}`,
          identity(result, { name: `result${index}` }),
        ]),
      ),
    },
  };
}
