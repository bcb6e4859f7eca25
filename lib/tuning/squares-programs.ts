import * as tf from "@tensorflow/tfjs-core";
import type { WorkerJob } from "#lib/core/job";
import type { GraphBuilder, GraphNode, GraphTensor } from "#lib/graph/builder";
import type { Program } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor } from "#lib/graph/tracing-backend";
import { assign, assignAdd, readVariable, type Variable } from "#lib/graph/variables";
import { batchFeeds } from "./batch-loss.js";
import { feedName, lossSumName } from "./gradient-programs.js";
import { packWords, type WireView } from "./wire-form.js";

/** Rows of a batch whose gradient is squared: a square is of a single row's gradient. */
const rowsOfSquare = 1;

/** Sums of squared gradients of rows, one row a run, in the accumulators of gradients. */
export interface SquaresPrograms {
  /** Sets the accumulators to the squares of a row's gradient. */
  readonly first: Program;
  /** Adds them. */
  readonly next: Program;
  /** Gives the accumulators. */
  readonly sums: Program;
}

/**
 * @param weights in the order of `views`, as are the accumulators
 * @param lossOf the loss sum of a row, traced: its negative log-likelihood, of which nothing is dropped
 */
export function buildSquaresPrograms(
  graph: GraphBuilder,
  job: WorkerJob,
  views: readonly WireView[],
  parts: {
    readonly weights: readonly tf.Tensor[];
    readonly accumulators: readonly Variable[];
    readonly lossOf: (
      weights: readonly tf.Tensor[],
      feeds: Readonly<Record<string, GraphTensor>>,
    ) => tf.Scalar;
  },
): SquaresPrograms {
  const { weights, accumulators, lossOf } = parts;
  const feeds = batchFeeds(graph, "squares", job, rowsOfSquare);
  const { value, grads } = tf.valueAndGrads((...xs: tf.Tensor[]) => lossOf(xs, feeds))([
    ...weights,
  ]);
  const lossSum = graphTensor(value);
  const writing = (
    name: string,
    write: (accumulator: Variable, square: GraphTensor) => GraphNode,
  ): Program => {
    const writes = grads.map((gradient, index) => {
      const wide = op.cast(graphTensor(gradient), "float32");
      return write(accumulators[index] as Variable, op.mul(wide, wide));
    });
    const done = op.identity(lossSum, { name: `fetch/${name}`, controlInputs: writes });
    return { name, feeds, fetches: { [lossSumName]: done } };
  };
  return {
    first: writing("squares/first", assign),
    next: writing("squares/next", assignAdd),
    sums: {
      name: "squares/sums",
      feeds: {},
      fetches: Object.fromEntries(
        views.map((view, index) => [
          feedName(view),
          op.identity(packWords(view, readVariable(accumulators[index] as Variable)), {
            name: `fetch/squares/${view.slot.name}`,
          }),
        ]),
      ),
    },
  };
}
