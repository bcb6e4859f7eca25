// Shape legend: B batch, T tokens, D model width, L longest generation.
import * as tf from "@tensorflow/tfjs-core";
import type { WorkerJob } from "#lib/core/job";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder, type GraphNode, type GraphTensor } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { Recomputation } from "#lib/graph/recomputation";
import type { Program } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace, type Tracer } from "#lib/graph/tracing-backend";
import { assign, deepCopy, readVariable, type Variable, variable } from "#lib/graph/variables";
import { checkPositions, type Weights } from "#lib/models/index";
import { batchFeeds, batchOutputs, type TrainableModel } from "./batch-loss.js";
import { buildDecodePrograms, type DecodePrograms, promptChunkLength } from "./decode-programs.js";
import {
  buildGradientPrograms,
  feedName,
  type GradientPrograms,
  nllSumName,
} from "./gradient-programs.js";
import { WeightLookup } from "./weight-lookup.js";
import { unpackWords, type WireView, wireViewOf } from "./wire-form.js";

/** The fetch of the classes that a classifier gives an evaluated batch, int32 [B]. */
export const predictionsName = "predictions";

/** All programs of a worker, over one graph: they share the weights. */
export interface TrainingPrograms {
  readonly graph: GraphBuilder;
  /** What is trained. */
  readonly views: readonly WireView[];
  readonly load: Program;
  /** Absent where every weight is trained. */
  readonly frozen: { readonly views: readonly WireView[]; readonly load: Program } | undefined;
  readonly gradients: GradientPrograms;
  readonly evaluate: Program;
  /** Absent where the job generates nothing. */
  readonly decode: DecodePrograms | undefined;
}

export function buildTrainingPrograms(model: TrainableModel, job: WorkerJob): TrainingPrograms {
  checkPositions(model, job.sequenceLength);
  const graph = new GraphBuilder();
  const autocast: Autocast = { compute: job.precision === "bf16" ? "bfloat16" : "float32" };
  const trained = weightsOf(graph, autocast, job.layout);
  const frozen = job.lora === undefined ? undefined : weightsOf(graph, autocast, job.lora.frozen);
  const tracer = { graph, autocast };
  const lookup = new WeightLookup(model, job);
  const readFrozen = (): readonly tf.Tensor[] => readWeights(frozen?.variables ?? []);
  const readAll = (): Weights => lookup.in([...readWeights(trained.variables), ...readFrozen()]);
  const gradients = trace(gradientTracer(tracer, job), () => {
    // Outside of what is differentiated: the tape follows no frozen weight, so backward has no product
    // for one, and none below the lowest adapter.
    const constants = readFrozen();
    return buildGradientPrograms(
      graph,
      job,
      trained.views,
      readWeights(trained.variables),
      (xs, feeds) => batchOutputs(model, lookup.in([...xs, ...constants]), feeds).nllSum,
    );
  });
  lookup.checkAllUsed();
  return {
    graph,
    views: trained.views,
    load: loadProgram(graph, "load", trained),
    frozen:
      frozen === undefined
        ? undefined
        : { views: frozen.views, load: loadProgram(graph, "load-frozen", frozen) },
    gradients,
    evaluate: trace(tracer, () => evaluateProgram(graph, model, job, readAll())),
    decode:
      job.generationLength === 0 || model.task !== "causal-lm"
        ? undefined
        : buildDecodePrograms(tracer, model, readAll, {
            batchSize: 1,
            maxLength: Math.min(job.generationLength, model.maxPositions),
            chunkLength: promptChunkLength,
          }),
  };
}

const gradientTracer = (tracer: Tracer, { gradientCheckpointing }: WorkerJob): Tracer =>
  gradientCheckpointing === true
    ? { ...tracer, recomputation: new Recomputation(tracer.graph) }
    : tracer;

interface StoredWeights {
  readonly views: readonly WireView[];
  readonly variables: readonly Variable[];
}

/** Matrices live in compute type, so no step casts them; vectors enter norms and stay float32. */
function weightsOf(
  graph: GraphBuilder,
  autocast: Autocast,
  layout: ParameterLayout,
): StoredWeights {
  const views = layout.tensors.map((slot) => wireViewOf(layout, slot));
  const variables = views.map(({ slot }) =>
    variable(
      graph,
      `weight/${slot.name}`,
      slot.shape.length >= 2 ? autocast.compute : "float32",
      slot.shape,
    ),
  );
  return { views, variables };
}

function loadProgram(
  graph: GraphBuilder,
  name: string,
  { views, variables }: StoredWeights,
): Program {
  const feeds: Record<string, GraphTensor> = {};
  const assigns = views.map((view, index) => {
    const { feed, value } = unpackWords(graph, `feed/weight/${view.slot.name}`, view);
    feeds[feedName(view)] = feed;
    const target = variables[index] as Variable;
    // A cast makes memory of its own; without one the fed array must not be borrowed for good.
    const owned = value.dtype === target.dtype ? deepCopy(value) : op.cast(value, target.dtype);
    return assign(target, owned);
  });
  return { name, feeds, fetches: { done: doneAfter(graph, `fetch/${name}`, assigns) } };
}

/** A scalar that is there once all the given nodes have run. */
const doneAfter = (graph: GraphBuilder, name: string, nodes: readonly GraphNode[]): GraphTensor =>
  op.identity(op.intScalar(graph, 1), { name, controlInputs: nodes });

const readWeights = (weights: readonly Variable[]): readonly tf.Tensor[] =>
  weights.map((weight) => symbolicTensor(readVariable(weight)));

function evaluateProgram(
  graph: GraphBuilder,
  model: TrainableModel,
  job: WorkerJob,
  weights: Weights,
): Program {
  const feeds = batchFeeds(graph, "evaluate", job, job.evalBatchSize);
  const { nllSum, logits_BL } = batchOutputs(model, weights, feeds);
  const fetched = (value: tf.Tensor, name: string): GraphTensor =>
    op.identity(graphTensor(value), { name });
  return {
    name: "evaluate",
    feeds,
    fetches: {
      [nllSumName]: fetched(nllSum, "fetch/evaluate"),
      ...(logits_BL === undefined
        ? {}
        : { [predictionsName]: fetched(tf.argMax(logits_BL, 1), "fetch/evaluate/predictions") }),
    },
  };
}
