import type * as tf from "@tensorflow/tfjs-core";
import { valuesPerRow } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import type { GraphBuilder, GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { symbolicTensor } from "#lib/graph/tracing-backend";
import type { Dropout, ModelInputs, Weights } from "#lib/models/index";
import {
  type HeadedModel,
  type ReferenceModel,
  type TracedLoss,
  tracedObjective,
} from "./objectives/index.js";

type Feeds = Readonly<Record<string, GraphTensor>>;

/** The feeds of a batch in static shape: the job's fields. */
export const batchFeeds = (
  graph: GraphBuilder,
  program: string,
  job: WorkerJob,
  numRows: number,
): Feeds =>
  Object.fromEntries(
    job.batchFields.map((field) => [
      field.name,
      op.placeholder(graph, `feed/${program}/${field.name}`, field.dtype, [
        numRows,
        valuesPerRow(field, job.sequenceLength),
      ]),
    ]),
  );

/** What a loss is computed with beside its batch. */
interface Pass {
  readonly weights: Weights;
  /** Absent outside of training. */
  readonly dropout?: Dropout | undefined;
  /** The model that the run starts from, where the objective compares with it. */
  readonly reference?: ReferenceModel | undefined;
}

/** The loss of a fed batch, as the job's objective has it. */
export function batchLoss(
  model: HeadedModel,
  { objective }: WorkerJob,
  { weights, dropout, reference }: Pass,
  feeds: Feeds,
): TracedLoss {
  const {
    tokens,
    segments,
    positions,
    tokenTypes,
    lengths: _,
    ...targets
  } = Object.fromEntries(
    Object.entries(feeds).map(([name, feed]) => [name, symbolicTensor(feed) as tf.Tensor2D]),
  );
  const inputs: ModelInputs = {
    tokens: tokens as tf.Tensor2D,
    ...(segments === undefined || positions === undefined ? {} : { segments, positions }),
    ...(tokenTypes === undefined ? {} : { tokenTypes }),
    ...(dropout === undefined ? {} : { dropout }),
  };
  const { loss } = tracedObjective(objective.kind);
  return loss(model, weights, inputs, targets, objective, reference);
}
