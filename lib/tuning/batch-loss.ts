import type * as tf from "@tensorflow/tfjs-core";
import { valuesPerRow } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import type { GraphBuilder, GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { symbolicTensor } from "#lib/graph/tracing-backend";
import type { Dropout, ModelInputs, Weights } from "#lib/models/index";
import { type HeadedModel, type TracedLoss, tracedObjective } from "./objectives/index.js";

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

/** The loss of a fed batch, as the job's objective has it. @param dropout absent outside of training */
export function batchLoss(
  model: HeadedModel,
  { objective }: WorkerJob,
  weights: Weights,
  feeds: Feeds,
  dropout?: Dropout,
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
  return tracedObjective(objective.kind).loss(model, weights, inputs, targets, objective);
}
