// Shape legend: B batch, T tokens, D model width, L longest generation.
import * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type { WorkerJob } from "#lib/core/job";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder, type GraphNode, type GraphTensor } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import type { Program } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import {
  assign,
  assignAdd,
  deepCopy,
  readVariable,
  type Variable,
  variable,
} from "#lib/graph/variables";
import { checkPositions, resolveWeights, type Weights } from "#lib/models/index";
import { batchFeeds, batchLoss, type TrainableModel } from "./batch-loss.js";
import { buildDecodePrograms, type DecodePrograms, promptChunkLength } from "./decode-programs.js";
import { packWords, unpackWords, type WireView, wireViewOf } from "./wire-form.js";

/** All programs of a worker, over one graph: they share the weights and the accumulators. */
export interface TrainingPrograms {
  readonly graph: GraphBuilder;
  readonly views: readonly WireView[];
  readonly load: Program;
  /** Sets the accumulated gradient to zero. */
  readonly clear: Program;
  /**
   * Adds to the accumulated gradient. One program, not a second that replaces: TensorFlow optimises
   * each program anew, which takes longer than filling the accumulators ever will.
   */
  readonly accumulate: Program;
  readonly readGradients: Program;
  readonly evaluate: Program;
  /** Absent where the job generates nothing. */
  readonly decode: DecodePrograms | undefined;
}

/** The name of a tensor's feed or fetch; parameter names hold dots, which TensorFlow allows. */
export const feedName = (view: WireView): string => view.slot.name;

export function buildTrainingPrograms(model: TrainableModel, job: WorkerJob): TrainingPrograms {
  checkPositions(model, job.sequenceLength);
  const graph = new GraphBuilder();
  const autocast: Autocast = { compute: job.precision === "bf16" ? "bfloat16" : "float32" };
  const views = job.layout.tensors.map((slot) => wireViewOf(job.layout, slot));
  // Matrices live in compute type, so no step casts them; vectors enter norms and stay float32.
  const weights = views.map((view) =>
    variable(
      graph,
      `weight/${view.slot.name}`,
      view.slot.shape.length >= 2 ? autocast.compute : "float32",
      view.slot.shape,
    ),
  );
  const accumulators = views.map((view) =>
    variable(graph, `gradient/${view.slot.name}`, "float32", view.slot.shape),
  );
  const tracer = { graph, autocast };
  const index = indexWeights(model, views);
  return {
    graph,
    views,
    load: loadProgram(graph, views, weights),
    clear: clearProgram(graph, accumulators),
    accumulate: trace(tracer, () =>
      accumulateProgram(graph, model, job, index, weights, accumulators),
    ),
    readGradients: {
      name: "readGradients",
      feeds: {},
      fetches: Object.fromEntries(
        views.map((view, index) => [
          feedName(view),
          op.identity(packWords(view, readVariable(accumulators[index] as Variable)), {
            name: `fetch/gradient/${view.slot.name}`,
          }),
        ]),
      ),
    },
    evaluate: trace(tracer, () => evaluateProgram(graph, model, job, index, weights)),
    decode:
      job.generationLength === 0 || model.task !== "causal-lm"
        ? undefined
        : buildDecodePrograms(tracer, model, () => lookupIn(index, readWeights(weights)), {
            batchSize: 1,
            maxLength: Math.min(job.generationLength, model.maxPositions),
            chunkLength: promptChunkLength,
          }),
  };
}

function loadProgram(
  graph: GraphBuilder,
  views: readonly WireView[],
  weights: readonly Variable[],
): Program {
  const feeds: Record<string, GraphTensor> = {};
  const assigns = views.map((view, index) => {
    const { feed, value } = unpackWords(graph, `feed/weight/${view.slot.name}`, view);
    feeds[feedName(view)] = feed;
    const target = weights[index] as Variable;
    // A cast makes memory of its own; without one the fed array must not be borrowed for good.
    const owned = value.dtype === target.dtype ? deepCopy(value) : op.cast(value, target.dtype);
    return assign(target, owned);
  });
  return { name: "load", feeds, fetches: { done: doneAfter(graph, "fetch/load", assigns) } };
}

/** A scalar that is there once all the given nodes have run. */
const doneAfter = (graph: GraphBuilder, name: string, nodes: readonly GraphNode[]): GraphTensor =>
  op.identity(op.intScalar(graph, 1), { name, controlInputs: nodes });

/** Where each weight of the model is among the views; a checkpoint may name it otherwise. */
type WeightIndex = ReadonlyMap<string, number>;

function indexWeights(model: TrainableModel, views: readonly WireView[]): WeightIndex {
  const indexOf = new Map(views.map((view, index) => [view.slot.name, index]));
  const resolved = resolveWeights(
    model,
    views.map((view) => view.slot),
  );
  return new Map([...resolved].map(([name, stored]) => [name, indexOf.get(stored) as number]));
}

const lookupIn =
  (index: WeightIndex, tensors: readonly tf.Tensor[]): Weights =>
  (name) => {
    const tensor = tensors[index.get(name) ?? -1];
    if (tensor !== undefined) return tensor;
    throw new LockstepError("E_MODEL_TENSOR_MISSING", {
      tensor: name,
      expectedShape: "its configuration's",
      got: "no such tensor in the job's parameters",
    });
  };

const readWeights = (weights: readonly Variable[]): readonly tf.Tensor[] =>
  weights.map((weight) => symbolicTensor(readVariable(weight)));

function clearProgram(graph: GraphBuilder, accumulators: readonly Variable[]): Program {
  const assigns = accumulators.map((accumulator) =>
    assign(accumulator, op.fill(op.scalar(graph, 0), accumulator.shape)),
  );
  return { name: "clear", feeds: {}, fetches: { done: doneAfter(graph, "fetch/clear", assigns) } };
}

function accumulateProgram(
  graph: GraphBuilder,
  model: TrainableModel,
  job: WorkerJob,
  index: WeightIndex,
  weights: readonly Variable[],
  accumulators: readonly Variable[],
): Program {
  const batch = batchFeeds(graph, "accumulate", job, job.microBatchSize);
  const feeds = {
    ...batch,
    gradScale: op.placeholder(graph, "feed/accumulate/gradScale", "float32", []),
  };
  const tensors = readWeights(weights);
  const { value, grads } = tf.valueAndGrads((...xs: tf.Tensor[]) =>
    batchLoss(model, lookupIn(index, xs), batch),
  )([...tensors], symbolicTensor(feeds.gradScale) as tf.Scalar);
  const adds = grads.map((gradient, index) =>
    assignAdd(accumulators[index] as Variable, op.cast(graphTensor(gradient), "float32")),
  );
  return {
    name: "accumulate",
    feeds,
    fetches: {
      nllSum: op.identity(graphTensor(value), { name: "fetch/accumulate", controlInputs: adds }),
    },
  };
}

function evaluateProgram(
  graph: GraphBuilder,
  model: TrainableModel,
  job: WorkerJob,
  index: WeightIndex,
  weights: readonly Variable[],
): Program {
  const feeds = batchFeeds(graph, "evaluate", job, job.evalBatchSize);
  const loss = batchLoss(model, lookupIn(index, readWeights(weights)), feeds);
  return {
    name: "evaluate",
    feeds,
    fetches: { nllSum: op.identity(graphTensor(loss), { name: "fetch/evaluate" }) },
  };
}
