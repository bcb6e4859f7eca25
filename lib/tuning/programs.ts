// Shape legend: B batch, T tokens, D model width, L longest generation.
import { isDeepStrictEqual } from "node:util";
import * as tf from "@tensorflow/tfjs-core";
import { computeDtypes, isNf4 } from "#lib/core/dtype";
import { jobOfTask, type WorkerJob } from "#lib/core/job";
import { type Fingerprint, heldLayout } from "#lib/core/held-weights";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import { wirePieces } from "#lib/core/wire-space";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder, type GraphNode, type GraphTensor } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { dequantised, nf4Shape } from "#lib/graph/nf4";
import { onDemand } from "#lib/graph/on-demand";
import { leadingRows, paddedRows, padRows } from "#lib/graph/padded-rows";
import { Recomputation } from "#lib/graph/recomputation";
import type { Program } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import { assign, deepCopy, readVariable, type Variable, variable } from "#lib/graph/variables";
import { checkPositions } from "#lib/models/index";
import { objectiveOf } from "#lib/objectives/index";
import { evaluatedObjective } from "#lib/objectives/z-loss";
import { batchFeeds, batchLoss } from "./batch-loss.js";
import { buildDecodePrograms, type DecodePrograms, promptChunkLength } from "./decode-programs.js";
import {
  buildGradientPrograms,
  feedName,
  gradientAccumulators,
  type GradientPrograms,
  lossSumName,
  outputsName,
} from "./gradient-programs.js";
import type { HeadedModel, ReferenceModel, TracedLoss } from "./objectives/index.js";
import { buildSquaresPrograms, type SquaresPrograms } from "./squares-programs.js";
import { WeightLookup } from "./weight-lookup.js";
import { heldWords, unpackWords, type WireView, wireViewOf } from "./wire-form.js";

/** All programs of a worker, over one graph: they share the weights. */
export interface TrainingPrograms {
  readonly graph: GraphBuilder;
  /** What is trained. */
  readonly views: readonly WireView[];
  readonly load: readonly PieceProgram[];
  /** Nothing where every weight is trained; else one for each of `wirePieces`. */
  readonly loadFrozen: readonly PieceProgram[];
  /** Where the job has fingerprints: those that read what is held back, by space, one for each of its pieces. */
  readonly readHeld: Readonly<Record<Fingerprint["space"], readonly PieceProgram[]>>;
  readonly gradients: GradientPrograms;
  /** Where the job squares gradients of rows. */
  readonly squares: SquaresPrograms | undefined;
  readonly evaluate: Program;
  /** Of the tasks after the first, which has the two above. */
  readonly otherTasks: readonly TaskPrograms[];
  /** Absent where the job generates nothing. */
  readonly decode: DecodePrograms | undefined;
}

/** What is computed of the batches of one task. */
export type TaskPrograms = Pick<TrainingPrograms, "gradients" | "evaluate">;

/** A model of a job; tasks with a head of their own have models of their own. */
export interface JobModel {
  readonly model: HeadedModel;
  /** The same where nothing is put beside its weights: what an objective may compare it with. */
  readonly plain: HeadedModel;
  /** Before the names of its own head's tensors; "": it has the head of the job's model. */
  readonly prefix: string;
}

/** @param given the job's model; or a model for each task */
export function buildTrainingPrograms(
  given: HeadedModel | readonly JobModel[],
  job: WorkerJob,
): TrainingPrograms {
  const jobs = (job.tasks ?? [undefined]).map((_, task) => jobOfTask(job, task));
  const models: readonly JobModel[] =
    "length" in given ? given : jobs.map(() => ({ model: given, plain: given, prefix: "" }));
  const main = models.find(({ prefix }) => prefix === "") ?? (models[0] as JobModel);
  const { model } = main;
  for (const [task, { sequenceLength }] of jobs.entries()) {
    checkPositions((models[task] as JobModel).model, sequenceLength);
  }
  const graph = new GraphBuilder();
  const autocast: Autocast = {
    compute: computeDtypes[job.precision],
    xla: job.xla === true,
  };
  const trained = weightsOf(graph, autocast, model, job.layout);
  const frozen: StoredWeights =
    job.frozen === undefined
      ? { views: [], variables: [] }
      : weightsOf(graph, autocast, model, job.frozen);
  const tracer = { graph, autocast };
  const lookups = new Map(
    models.map((one) => [one.prefix, new WeightLookup(one.model, job, one.prefix)]),
  );
  const lookupOf = ({ prefix }: JobModel): WeightLookup => lookups.get(prefix) as WeightLookup;
  const readAll = (): readonly tf.Tensor[] => [
    ...readWeights(trained, autocast),
    ...readWeights(frozen, autocast),
  ];
  const referenceOf = (
    of: JobModel,
    { objective }: WorkerJob,
    tensors: readonly tf.Tensor[],
  ): ReferenceModel | undefined =>
    objectiveOf(objective.kind).hasReference === true
      ? { model: of.plain, weights: lookupOf(of).reference(tensors) }
      : undefined;
  const accumulators = gradientAccumulators(graph, trained.views);
  const gradientsOf = (of: JobModel, taskJob: WorkerJob, task: string): GradientPrograms => {
    const lookup = lookupOf(of);
    const recomputation = job.gradientCheckpointing === true ? new Recomputation(graph) : undefined;
    const gradientTracer = recomputation === undefined ? tracer : { ...tracer, recomputation };
    const gradients = trace(gradientTracer, () => {
      // Outside of what is differentiated: the tape follows no frozen weight, so backward has no product
      // for one, and none below the lowest adapter.
      const constants = readWeights(frozen, autocast);
      const values = readWeights(trained, autocast);
      return buildGradientPrograms(
        graph,
        taskJob,
        task,
        trained.views,
        accumulators,
        // Those of other tasks' heads have no gradient here.
        values.map((value, index) => (lookup.has(index) ? value : undefined)),
        (xs, feeds, dropout) => {
          const tensors = [...values.map((value, index) => xs[index] ?? value), ...constants];
          const pass = {
            ...{ weights: lookup.in(tensors, dropout), dropout },
            reference: referenceOf(of, taskJob, tensors),
          };
          return batchLoss(of.model, taskJob, pass, feeds);
        },
      );
    });
    // XLA's copy of the nodes has been made by now, and XLA orders it by itself.
    if (job.xla !== true) recomputation?.orderBlocks(Object.values(gradients.only.fetches));
    return gradients;
  };
  const squaresOf = (task: number): SquaresPrograms =>
    trace(tracer, () => {
      const of = models[task] as JobModel;
      const lookup = lookupOf(of);
      const constants = readWeights(frozen, autocast);
      const values = readWeights(trained, autocast);
      const taskJob = jobOfTask(job, task);
      // The log-likelihood itself, of which no setting of the objective takes anything.
      const likelihood = { ...taskJob, objective: { kind: taskJob.objective.kind } };
      return buildSquaresPrograms(graph, taskJob, trained.views, {
        weights: values.map((value, index) => (lookup.has(index) ? value : undefined)),
        accumulators,
        lossOf: (xs, feeds) => {
          const tensors = [...values.map((value, index) => xs[index] ?? value), ...constants];
          return batchLoss(of.model, likelihood, { weights: lookup.in(tensors) }, feeds).lossSum;
        },
      });
    });
  const tasks: TaskPrograms[] = [];
  for (const [index, taskJob] of jobs.entries()) {
    // Tasks of one form differ in their weight alone.
    const of = models[index] as JobModel;
    const same = jobs.findIndex(
      (one, place) => models[place]?.prefix === of.prefix && isDeepStrictEqual(one, taskJob),
    );
    const task = index === 0 ? "" : `/${index}`;
    const known = tasks[same];
    tasks.push(
      known ?? {
        gradients: gradientsOf(of, taskJob, task),
        evaluate: trace(tracer, () => {
          const tensors = readAll();
          const weights = lookupOf(of).in(tensors);
          const pass = { weights, reference: referenceOf(of, taskJob, tensors) };
          return evaluateProgram(graph, taskJob, task, (evaluated, feeds) =>
            batchLoss(of.model, evaluated, pass, feeds),
          );
        }),
      },
    );
  }
  const [first, ...otherTasks] = tasks as [TaskPrograms, ...TaskPrograms[]];
  const squares = job.squares === undefined ? undefined : squaresOf(job.squares.task);
  for (const lookup of lookups.values()) lookup.checkAllUsed();
  return {
    graph,
    views: trained.views,
    load: loadPrograms(graph, "load", trained, job.layout),
    loadFrozen:
      job.frozen === undefined ? [] : loadPrograms(graph, "load-frozen", frozen, job.frozen),
    readHeld: {
      trained: readPrograms("read", trained, job, job.layout),
      frozen: readPrograms("read-frozen", frozen, job, job.frozen),
    },
    ...first,
    squares,
    otherTasks,
    decode:
      job.generationLength === 0 || model.task !== "causal-lm"
        ? undefined
        : buildDecodePrograms(tracer, model, () => lookupOf(main).in(readAll()), {
            batchSize: 1,
            maxLength: Math.min(job.generationLength, model.maxPositions),
            chunkLength: promptChunkLength,
          }),
  };
}

interface StoredWeights {
  readonly views: readonly WireView[];
  readonly variables: readonly Variable[];
}

/**
 * Matrices live in compute type, so no step casts them, or in their 4 bits; vectors enter norms and stay float32.
 */
function weightsOf(
  graph: GraphBuilder,
  autocast: Autocast,
  model: HeadedModel,
  layout: ParameterLayout,
): StoredWeights {
  const views = layout.tensors.map((slot) => wireViewOf(layout, slot));
  const variables = views.map(({ slot, dtype }) => {
    const name = `weight/${slot.name}`;
    if (isNf4(dtype)) return variable(graph, name, "uint8", nf4Shape(dtype, slot.size));
    const stored = slot.shape.length >= 2 ? autocast.compute : "float32";
    return variable(graph, name, stored, storedShape(model, slot.shape));
  });
  return { views, variables };
}

/** A matrix with a row a word of the vocabulary is padded for the products of the output projection. */
function storedShape(model: HeadedModel, shape: readonly number[]): readonly number[] {
  const [rows, width] = shape;
  const isVocabulary = model.task === "causal-lm" && shape.length === 2 && rows === model.vocabSize;
  return isVocabulary ? [paddedRows(rows), width as number] : shape;
}

/** Fills the weights of some views, those in a range of the space, from their words, or gives out their words. */
export interface PieceProgram extends Program {
  readonly range: ElementRange;
  readonly views: readonly WireView[];
}

/**
 * Several programs, one after the other: a load holds its weights twice, as TensorFlow copies what it
 * is fed, and all of them at once would be the most that a worker of a small batch ever holds.
 */
function loadPrograms(
  graph: GraphBuilder,
  name: string,
  { views, variables }: StoredWeights,
  layout: ParameterLayout,
): readonly PieceProgram[] {
  return wirePieces(layout).map((range, piece) => {
    const loaded: WireView[] = [];
    const assigns: GraphNode[] = [];
    const feeds: Record<string, GraphTensor> = {};
    for (const [index, view] of views.entries()) {
      if (view.slot.offset < range.start || view.slot.offset >= range.end) continue;
      const { feed, value } = unpackWords(graph, `feed/weight/${view.slot.name}`, view);
      const target = variables[index] as Variable;
      const padded = padRows(op.cast(value, target.dtype), target.shape[0] as number);
      // A cast or padding makes memory of its own; the fed array must not be borrowed for good.
      const isOwned = value.dtype !== target.dtype || !op.sameShape(value.shape, target.shape);
      const owned = isOwned ? padded : deepCopy(padded);
      loaded.push(view);
      assigns.push(assign(target, owned));
      feeds[feedName(view)] = feed;
    }
    return {
      name: `${name}/${piece}`,
      range,
      views: loaded,
      feeds,
      fetches: { done: doneAfter(graph, `fetch/${name}/${piece}`, assigns) },
    };
  });
}

/** Programs of which each gives out the words of a piece of a space as it is held. */
function readPrograms(
  name: string,
  { variables }: StoredWeights,
  { precision, fingerprints }: WorkerJob,
  layout: ParameterLayout | undefined,
): readonly PieceProgram[] {
  if (layout === undefined || fingerprints !== true) return [];
  const held = heldLayout(layout, precision);
  const views = held.tensors.map((slot) => wireViewOf(held, slot));
  return wirePieces(held).map((range, piece) => {
    const read = views.flatMap((view, index) => {
      const { offset } = view.slot;
      const isOfPiece = offset >= range.start && offset < range.end;
      return isOfPiece ? [{ view, value: readVariable(variables[index] as Variable) }] : [];
    });
    return {
      name: `${name}/${piece}`,
      range,
      views: read.map(({ view }) => view),
      feeds: {},
      fetches: Object.fromEntries(
        read.map(({ view, value }) => [
          feedName(view),
          op.identity(heldWords(view, value), { name: `fetch/${name}/${view.slot.name}` }),
        ]),
      ),
    };
  });
}

/** A scalar that is there once all the given nodes have run. */
const doneAfter = (graph: GraphBuilder, name: string, nodes: readonly GraphNode[]): GraphTensor =>
  op.identity(op.intScalar(graph, 1), { name, controlInputs: nodes });

const readWeights = (
  { views, variables }: StoredWeights,
  { compute }: Autocast,
): readonly tf.Tensor[] =>
  views.map(({ slot, dtype }, index) => {
    const stored = readVariable(variables[index] as Variable);
    if (isNf4(dtype)) {
      return symbolicTensor(
        onDemand((after) => {
          const bytes = op.identity(stored, { controlInputs: after });
          if (slot.isTransposed !== true) return dequantised(dtype, bytes, slot.shape, compute);
          const turned = [...slot.shape].reverse();
          return op.transpose(dequantised(dtype, bytes, turned, compute), [1, 0]);
        }),
      );
    }
    const numRows = slot.shape[0] as number;
    return symbolicTensor(stored.shape[0] === numRows ? stored : leadingRows(stored, numRows));
  });

function evaluateProgram(
  graph: GraphBuilder,
  job: WorkerJob,
  task: string,
  lossOf: (evaluated: WorkerJob, feeds: Readonly<Record<string, GraphTensor>>) => TracedLoss,
): Program {
  const name = `evaluate${task}`;
  const feeds = batchFeeds(graph, name, job, job.evalBatchSize);
  const objective = evaluatedObjective(job.objective);
  const loss = lossOf({ ...job, objective }, feeds);
  const fetched = (value: tf.Tensor, name: string): GraphTensor =>
    op.identity(graphTensor(value), { name });
  return {
    name,
    feeds,
    fetches: {
      [lossSumName]: fetched(loss.lossSum, `fetch/${name}`),
      ...(loss.outputs === undefined
        ? {}
        : { [outputsName]: fetched(loss.outputs(), `fetch/${name}/outputs`) }),
    },
  };
}
