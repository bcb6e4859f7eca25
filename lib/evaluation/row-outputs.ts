// Shape legend: B rows, T tokens, M = B*T, D model width, V vocabulary, L labels.
import * as tf from "@tensorflow/tfjs-core";
import type { ParametersJob } from "#lib/core/job";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import type { Model, ModelInputs, Weights, WeightSpec } from "#lib/models/index";
import { traceParameters } from "#lib/tuning/parameters/index";
import { WeightVariables } from "#lib/tuning/weight-variables";

interface RowsOfModel {
  readonly model: Model;
  /** What stands beside the model's weights, with the tensors that it adds; absent: nothing. */
  readonly beside?: { readonly job: ParametersJob; readonly added: readonly WeightSpec[] };
  /** A tensor's values by its name, float32. */
  readonly read: (name: string) => Promise<Float32Array>;
  /** int32 [B, T] */
  readonly tokens: Int32Array;
  readonly numRows: number;
}

/**
 * What a model says of rows of tokens, in float32: logits [B, T, V] of a language model, [B, L] of a
 * classifier, hidden states [B, T, D] of a model without a head.
 */
export async function outputsOfRows({
  model,
  beside,
  read,
  tokens,
  numRows,
}: RowsOfModel): Promise<Float32Array> {
  const graph = new GraphBuilder();
  const autocast: Autocast = { compute: "float32" };
  const weights = new WeightVariables(
    graph,
    [...model.weights, ...(beside?.added ?? [])],
    autocast,
  );
  const program = trace({ graph, autocast }, () => {
    const feed = op.placeholder(graph, "feed/rows", "int32", [numRows, tokens.length / numRows]);
    const view =
      beside === undefined
        ? weights.lookup
        : traceParameters(beside.job).weightsFrom(weights.lookup);
    const outputs = outputsOf(model, view, { tokens: symbolicTensor(feed) as tf.Tensor2D });
    const fetch = op.identity(op.cast(graphTensor(outputs), "float32"), { name: "fetch/rows" });
    return { name: "rows", feeds: { tokens: feed }, fetches: { outputs: fetch } };
  });
  const session = await weights.open(graph, read);
  try {
    return session.run(program, { tokens })["outputs"] as Float32Array;
  } finally {
    session.close();
  }
}

function outputsOf(model: Model, weights: Weights, inputs: ModelInputs): tf.Tensor {
  const hidden_BTD = model.hiddenStates(weights, inputs);
  if (model.task === "feature-extraction") return hidden_BTD;
  if (model.task === "sequence-classification") return model.logits(weights, inputs, hidden_BTD);
  const [b, t, d] = hidden_BTD.shape;
  const hidden_MD = tf.reshape(hidden_BTD, [b * t, d]);
  const logits_MV = tf.matMul(hidden_MD, model.outputProjection(weights), false, true);
  if (model.logitSoftcap === null) return logits_MV;
  const softcap = tf.scalar(model.logitSoftcap);
  return tf.mul(tf.tanh(tf.div(logits_MV, softcap)), softcap);
}
