import { type Batch, checkBatch, type FieldArray } from "#lib/core/batch";
import { computeDtypes } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import {
  type CreateTrainingEngine,
  type EvaluatedBatch,
  jobOfTask,
  type TrainingEngine,
  type WorkerJob,
} from "#lib/core/job";
import { type Fingerprint, heldLayout } from "#lib/core/held-weights";
import { type ParameterLayout, wireOffsetBytes, wireSizeBytes } from "#lib/core/parameter-layout";
import { wireRangeBytes } from "#lib/core/wire-space";
import { hasConversions } from "#lib/graph/bf16-kernels";
import { Session } from "#lib/graph/session";
import { createModel } from "#lib/models/index";
import { objectiveOf } from "#lib/objectives/index";
import { Decoder } from "./decoder.js";
import { feedName, lossSumName, outputsName } from "./gradient-programs.js";
import { plannedEngineBytes } from "./memory-plan.js";
import { type HeadedModel, tracedObjective } from "./objectives/index.js";
import { traceParameters } from "./parameters/index.js";
import {
  buildTrainingPrograms,
  type JobModel,
  type PieceProgram,
  type TaskPrograms,
  type TrainingPrograms,
} from "./programs.js";
import { type WireView, wordsOf } from "./wire-form.js";

/** @throws E_CONFIG_UNSUPPORTED for a type that the device cannot compute in */
function checkPrecision({ precision }: WorkerJob): void {
  if (hasConversions(computeDtypes[precision])) return;
  throw new LockstepError("E_CONFIG_UNSUPPORTED", {
    ...{ key: precision, value: "true", where: "" },
    reason: "this processor has no AVX, and with it no instructions that convert float16",
  });
}

/** Computes a job's gradients, losses and samples in one TensorFlow session. */
class GraphEngine implements TrainingEngine {
  readonly plannedBytes: number | undefined;
  readonly #job: WorkerJob;
  readonly #programs: TrainingPrograms;
  readonly #session: Session;
  /** Absent where the job generates nothing. */
  readonly #decoder: Decoder | undefined;

  constructor(job: WorkerJob) {
    checkPrecision(job);
    this.#job = job;
    this.#programs = buildTrainingPrograms(jobModels(job), job);
    this.#session = new Session(this.#programs.graph);
    this.plannedBytes = plannedEngineBytes(job, this.#programs, process.memoryUsage.rss());
    const { decode } = this.#programs;
    this.#decoder = decode === undefined ? undefined : new Decoder(this.#session, decode);
  }

  loadFrozen(piece: number, wireBytes: Uint8Array): void {
    const { frozen } = this.#job;
    if (frozen === undefined) throw new RangeError("The job has no frozen weights");
    this.#loadPiece(frozen, this.#programs.loadFrozen[piece], wireBytes);
  }

  loadParameters(wireBytes: Uint8Array, piece?: number): void {
    const { layout } = this.#job;
    const { load } = this.#programs;
    if (piece !== undefined) {
      this.#loadPiece(layout, load[piece], wireBytes);
      return;
    }
    checkSize(wireSizeBytes(layout), wireBytes);
    for (const program of load) this.#load(program, wireBytes);
  }

  readHeld(space: Fingerprint["space"], piece: number, into: Uint8Array): void {
    const layout = space === "trained" ? this.#job.layout : this.#job.frozen;
    const program = this.#programs.readHeld[space][piece];
    if (program === undefined || layout === undefined) {
      throw new RangeError("The space has no such piece");
    }
    const held = heldLayout(layout, this.#job.precision);
    checkSize(wireRangeBytes(held, program.range), into);
    const firstByte = wireOffsetBytes(held, program.range.start);
    this.#session.run(program, {}, arraysOf(program.views, into, firstByte));
  }

  #loadPiece(
    layout: ParameterLayout,
    program: PieceProgram | undefined,
    wireBytes: Uint8Array,
  ): void {
    if (program === undefined) throw new RangeError("The space has no such piece");
    checkSize(wireRangeBytes(layout, program.range), wireBytes);
    this.#load(program, wireBytes, wireOffsetBytes(layout, program.range.start));
  }

  #load(program: PieceProgram, wireBytes: Uint8Array, firstByte = 0): void {
    this.#session.run(program, arraysOf(program.views, wireBytes, firstByte));
  }

  accumulate(
    batch: Batch,
    gradScale: number,
    first: boolean,
    wireBytes?: Uint8Array,
  ): EvaluatedBatch {
    if (wireBytes !== undefined) checkSize(wireSizeBytes(this.#job.layout), wireBytes);
    const { views } = this.#programs;
    const { gradients } = this.#programsOf(batch);
    const program =
      wireBytes === undefined
        ? gradients[first ? "first" : "middle"]
        : gradients[first ? "only" : "last"];
    const feeds = {
      ...this.#fieldsOf(batch),
      gradScale: Float32Array.of(gradScale),
      ...(this.#job.dropout === undefined ? {} : { coordinates: coordinatesOf(batch) }),
    };
    const into = wireBytes === undefined ? {} : arraysOf(views, wireBytes);
    const fetched = this.#session.run(program, feeds, into);
    return this.#evaluated(fetched, batch);
  }

  accumulateSquares(batch: Batch, first: boolean, wireBytes?: Uint8Array): EvaluatedBatch {
    const { squares, views } = this.#programs;
    if (squares === undefined) throw new RangeError("The job squares no gradients");
    const fetched = this.#session.run(squares[first ? "first" : "next"], this.#fieldsOf(batch));
    if (wireBytes !== undefined) {
      checkSize(wireSizeBytes(this.#job.layout), wireBytes);
      this.#session.run(squares.sums, {}, arraysOf(views, wireBytes));
    }
    return this.#evaluated(fetched, batch);
  }

  evaluate(batch: Batch): EvaluatedBatch {
    const fetched = this.#session.run(this.#programsOf(batch).evaluate, this.#fieldsOf(batch));
    return this.#evaluated(fetched, batch);
  }

  generate(prompt: Int32Array, maxNewTokens: number, endTokenIds: readonly number[]): Int32Array {
    const maxLength = this.#decoder?.maxLength ?? 0;
    if (this.#decoder === undefined || prompt.length === 0 || prompt.length > maxLength) {
      throw new LockstepError("E_GRAPH_SHAPE", {
        op: "generate",
        expected: `a prompt of 1 to ${maxLength} tokens`,
        got: `${prompt.length}`,
      });
    }
    const numTokens = Math.min(maxNewTokens, maxLength - prompt.length);
    const tokens: number[] = [];
    let next = this.#decoder.start([prompt], "token");
    while (tokens.length < numTokens && !endTokenIds.includes(next[0] as number)) {
      tokens.push(next[0] as number);
      if (tokens.length < numTokens) next = this.#decoder.append(next, "token");
    }
    return Int32Array.from(tokens);
  }

  close(): void {
    this.#session.close();
  }

  #programsOf({ task = 0 }: Batch): TaskPrograms {
    return this.#programs.otherTasks[task - 1] ?? this.#programs;
  }

  /** @throws E_MESSAGE_INVALID for a batch of no task of the job, or with other fields than its task's */
  #fieldsOf(batch: Batch): Record<string, FieldArray> {
    const { batchFields, sequenceLength } = jobOfTask(this.#job, batch.task);
    checkBatch(batch, batchFields, sequenceLength);
    return { ...batch.fields };
  }

  #evaluated(
    fetched: Awaited<ReturnType<Session["run"]>>,
    { fields, task }: Batch,
  ): EvaluatedBatch {
    const { objective } = jobOfTask(this.#job, task);
    const weight = objectiveOf(objective.kind).weightOf(fields, objective);
    const outputs = fetched[outputsName];
    return {
      ...{ lossSum: fetched[lossSumName]?.[0] as number, weight },
      ...(outputs instanceof Int32Array || outputs instanceof Float32Array ? { outputs } : {}),
    };
  }
}

/** The tensors' words in a buffer of the space, which begins at its `firstByte`, by the names of their feeds or fetches. */
const arraysOf = (
  views: readonly WireView[],
  wireBytes: Uint8Array,
  firstByte = 0,
): Record<string, Float32Array | Int32Array> =>
  Object.fromEntries(views.map((view) => [feedName(view), wordsOf(view, wireBytes, firstByte)]));

function coordinatesOf({ coordinates }: Batch): Int32Array {
  if (coordinates === undefined) throw new RangeError("A batch of training has no coordinates");
  return Int32Array.of(coordinates.step, coordinates.group, coordinates.index);
}

function checkSize(expected: number, wireBytes: Uint8Array): void {
  if (wireBytes.byteLength !== expected) {
    throw new LockstepError("E_GRAPH_SHAPE", {
      op: "The parameter space",
      expected: `${expected} bytes`,
      got: `${wireBytes.byteLength}`,
    });
  }
}

/** The job's model, or that of each task; those without a head of their own share one. */
function jobModels(job: WorkerJob): readonly JobModel[] {
  const models = new Map<string, JobModel>();
  return (job.tasks ?? [undefined]).map((task): JobModel => {
    const { prefix = "", configChanges = {} } = task?.head ?? {};
    const known = models.get(prefix);
    if (known !== undefined) return known;
    const plain = trainableModel({
      ...job,
      modelConfig: { ...job.modelConfig, ...configChanges },
      objective: task?.objective ?? job.objective,
    });
    const model = traceParameters(job.parameters).modelFrom?.(plain) ?? plain;
    const made = { model, plain, prefix };
    models.set(prefix, made);
    return made;
  });
}

/** The job's model with the head of its checkpoint; a base model predicts tokens by its embedding. */
function trainableModel({ modelConfig, objective }: WorkerJob): HeadedModel {
  const model = createModel(modelConfig);
  if (model.task === "feature-extraction") return createModel(modelConfig, { task: "causal-lm" });
  if (tracedObjective(objective.kind).fits(model)) return model;
  const what =
    model.task === "causal-lm"
      ? `Training a causal model by ${objective.kind}`
      : `Training with ${model.numLabels} labels of problem_type ${model.problemType ?? objective.kind}`;
  throw new LockstepError("E_MODEL_UNSUPPORTED", { what });
}

const createEngine: CreateTrainingEngine = async (job) => new GraphEngine(job);
export default createEngine;
