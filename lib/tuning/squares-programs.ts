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
 * @param weights in the order of `views`, as are the accumulators; squares are 0 where one is undefined
 * @param lossOf the loss sum of a row, traced: its negative log-likelihood, of which nothing is dropped
 */
export function buildSquaresPrograms(
  graph: GraphBuilder,
  job: WorkerJob,
  views: readonly WireView[],
  parts: {
    readonly weights: readonly (tf.Tensor | undefined)[];
    readonly accumulators: readonly Variable[];
    readonly lossOf: (
      weights: readonly (tf.Tensor | undefined)[],
      feeds: Readonly<Record<string, GraphTensor>>,
    ) => tf.Scalar;
  },
): SquaresPrograms {
  const { weights, accumulators, lossOf } = parts;
  const feeds = batchFeeds(graph, "squares", job, rowsOfSquare);
  const used = weights.flatMap((weight, index) => (weight === undefined ? [] : [index]));
  const { value, grads } = tf.valueAndGrads((...xs: tf.Tensor[]) => {
    const own: (tf.Tensor | undefined)[] = weights.map(() => undefined);
    for (const [place, index] of used.entries()) own[index] = xs[place];
    return lossOf(own, feeds);
  })(weights.filter((weight) => weight !== undefined));
  const lossSum = graphTensor(value);
  const writing = (
    name: string,
    write: (accumulator: Variable, square: GraphTensor) => GraphNode,
  ): Program => {
    const writes = views.map(({ slot }, index) => {
      const gradient = grads[used.indexOf(index)];
      const wide =
        gradient === undefined
          ? op.fill(op.scalar(graph, 0, "float32"), slot.shape)
          : op.cast(graphTensor(gradient), "float32");
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
