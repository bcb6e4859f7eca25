import * as tf from "@tensorflow/tfjs-core";
import { lengthField, pairLengthsField } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import type { GraphBuilder, GraphNode, GraphTensor } from "#lib/graph/builder";
import type { Program } from "#lib/graph/session";
import type { Dropout } from "#lib/models/index";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor } from "#lib/graph/tracing-backend";
import { assign, assignAdd, readVariable, type Variable, variable } from "#lib/graph/variables";
import { xlaRegion } from "#lib/graph/xla-region";
import { objectiveOf } from "#lib/objectives/index";
import { batchFeeds } from "./batch-loss.js";
import { passDropout } from "./dropout.js";
import type { TracedLoss } from "./objectives/index.js";
import { packWords, type WireView } from "./wire-form.js";

/**
 * The micro-batches of a group by their place in it. All share the nodes of forward and backward; what
 * differs is where a gradient goes. TensorFlow compiles a program at its first run, so a job pays for
 * the places that its groups have: one, where a group is one micro-batch, and no accumulator is made.
 */
export interface GradientPrograms {
  /** The group's one micro-batch: gradients leave straight from backward. */
  readonly only: Program;
  /** Sets the accumulators. */
  readonly first: Program;
  /** Adds to the accumulators. */
  readonly middle: Program;
  /** Gives the accumulators plus its own gradients. */
  readonly last: Program;
}

/** The fetch of a batch's loss; a gradient's fetch is called by its tensor. */
export const lossSumName = "lossSum";
/** The fetch of what the model says of each row of a batch. */
export const outputsName = "outputs";

/** The name of a tensor's feed or fetch; parameter names hold dots, which TensorFlow allows. */
export const feedName = (view: WireView): string => view.slot.name;

/** Where a group's gradients are added up, whatever tasks its micro-batches are of. */
export const gradientAccumulators = (
  graph: GraphBuilder,
  views: readonly WireView[],
): readonly Variable[] =>
  views.map(({ slot }) => variable(graph, `gradient/${slot.name}`, "float32", slot.shape));

/**
 * @param job as the rows of a task see it
 * @param task of whose name nodes are called; "" of the first
 * @param accumulators one a view
 * @param weights in the order of `views`; gradients are taken with respect to them, and are 0 where one is undefined
 * @param lossOf the batch's loss, traced, with what this pass drops
 */
export function buildGradientPrograms(
  graph: GraphBuilder,
  job: WorkerJob,
  task: string,
  views: readonly WireView[],
  accumulators: readonly Variable[],
  weights: readonly (tf.Tensor | undefined)[],
  lossOf: (
    weights: readonly (tf.Tensor | undefined)[],
    feeds: Readonly<Record<string, GraphTensor>>,
    dropout: Dropout | undefined,
  ) => TracedLoss,
): GradientPrograms {
  const batch = batchFeeds(graph, `accumulate${task}`, job, job.microBatchSize);
  const feed = `feed/accumulate${task}`;
  const gradScale = op.placeholder(graph, `${feed}/gradScale`, "float32", []);
  const drops =
    job.dropout === undefined
      ? {}
      : { coordinates: op.placeholder(graph, `${feed}/coordinates`, "int32", [3]) };
  const feeds = { ...batch, gradScale, ...drops };
  const dropout = passDropout(job.dropout, {
    coordinates: drops.coordinates,
    lengths: batch[pairLengthsField.name] ?? batch[lengthField.name],
  });
  const { scoresTraining = false } = objectiveOf(job.objective.kind);
  let scored: GraphTensor | undefined;
  const used = weights.flatMap((weight, index) => (weight === undefined ? [] : [index]));
  const { value, grads } = tf.valueAndGrads((...xs: tf.Tensor[]) => {
    const own: (tf.Tensor | undefined)[] = weights.map(() => undefined);
    for (const [place, index] of used.entries()) own[index] = xs[place];
    const loss = lossOf(own, batch, dropout);
    const told = scoresTraining ? loss.outputs?.() : undefined;
    if (told !== undefined) scored = graphTensor(told);
    return loss.lossSum;
  })(
    weights.filter((weight) => weight !== undefined),
    symbolicTensor(gradScale) as tf.Scalar,
  );
  const whole = [value, ...grads].map(graphTensor);
  const traced = scored === undefined ? whole : [...whole, scored];
  const computed =
    job.xla === true ? xlaRegion(`Gradients${task.replace("/", "_")}`, traced) : traced;
  const [lossSum, ...others] = computed as [GraphTensor, ...GraphTensor[]];
  const gradients = views.map(({ slot }, index) => {
    const place = used.indexOf(index);
    if (place >= 0) return others[place] as GraphTensor;
    return op.fill(op.scalar(graph, 0, "float32"), slot.shape);
  });
  const outputs = others[grads.length];
  const scores = (name: string): Readonly<Record<string, GraphTensor>> =>
    outputs === undefined
      ? {}
      : { [outputsName]: op.identity(outputs, { name: `fetch/${name}/outputs` }) };
  const sums = (): GraphTensor[] => gradients.map((gradient) => op.cast(gradient, "float32"));

  /** The loss, there once the accumulators are written. */
  const writing = (
    place: string,
    write: (accumulator: Variable, gradient: GraphTensor) => GraphNode,
  ): Program => {
    const name = `${place}${task}`;
    const writes = sums().map((sum, index) => write(accumulators[index] as Variable, sum));
    const done = op.identity(lossSum, { name: `fetch/${name}`, controlInputs: writes });
    return { name, feeds, fetches: { [lossSumName]: done, ...scores(name) } };
  };
  const fetching = (place: string, values: readonly GraphTensor[]): Program => {
    const name = `${place}${task}`;
    return {
      name,
      feeds,
      fetches: {
        [lossSumName]: op.identity(lossSum, { name: `fetch/${name}` }),
        ...scores(name),
        ...Object.fromEntries(
          views.map((view, index) => [
            feedName(view),
            op.identity(packWords(view, values[index] as GraphTensor), {
              name: `fetch/${name}/${view.slot.name}`,
            }),
          ]),
        ),
      },
    };
  };
  return {
    only: fetching("only", gradients),
    first: writing("first", assign),
    middle: writing("middle", assignAdd),
    last: fetching(
      "last",
      sums().map((sum, index) => op.add(readVariable(accumulators[index] as Variable), sum)),
    ),
  };
}
