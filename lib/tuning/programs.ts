// Shape legend: B batch, T tokens, D model width, L longest generation.
import type * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type { WorkerJob } from "#lib/core/job";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder, type GraphNode, type GraphTensor } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import type { Program } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import { assign, deepCopy, readVariable, type Variable, variable } from "#lib/graph/variables";
import { checkPositions, resolveWeights, type Weights } from "#lib/models/index";
import { batchFeeds, batchLoss, type TrainableModel } from "./batch-loss.js";
import { buildDecodePrograms, type DecodePrograms, promptChunkLength } from "./decode-programs.js";
import { buildGradientPrograms, feedName, type GradientPrograms } from "./gradient-programs.js";
import { unpackWords, type WireView, wireViewOf } from "./wire-form.js";

/** All programs of a worker, over one graph: they share the weights. */
export interface TrainingPrograms {
  readonly graph: GraphBuilder;
  readonly views: readonly WireView[];
  readonly load: Program;
  readonly gradients: GradientPrograms;
  readonly evaluate: Program;
  /** Absent where the job generates nothing. */
  readonly decode: DecodePrograms | undefined;
}

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
  const tracer = { graph, autocast };
  const index = indexWeights(model, views);
  return {
    graph,
    views,
    load: loadProgram(graph, views, weights),
    gradients: trace(tracer, () =>
      buildGradientPrograms(graph, job, views, readWeights(weights), (xs, feeds) =>
        batchLoss(model, lookupIn(index, xs), feeds),
      ),
    ),
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
