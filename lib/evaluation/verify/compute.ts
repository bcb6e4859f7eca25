// Shape legend: B rows, T tokens, D model width, V vocabulary, L labels.
import * as tf from "@tensorflow/tfjs-core";
import { dtypeOf } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectiveJob } from "#lib/core/job";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder, type GraphTensor } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { type Program, Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import type { CausalLanguageModel, Model, ModelInputs, Weights } from "#lib/models/index";
import { objectiveOf } from "#lib/objectives/index";
import { type HeadedModel, tracedObjective } from "#lib/tuning/objectives/index";
import { WeightVariables } from "#lib/tuning/weight-variables";
import type { ReferenceCase } from "./case.js";

export interface CaseResult {
  /** Mean over supervised tokens, rows or outputs, as transformers takes it. */
  readonly loss: number;
  /** [B, T, V] of a causal model, [B, L] of a classifier. */
  readonly logits: Float32Array;
  /** The loss' gradient with respect to every weight. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
  /** As many tokens as the case's continuation has; undefined where it has none. */
  readonly continuation: Int32Array | undefined;
}

type GreedyCase = NonNullable<ReferenceCase["greedy"]>;

/**
 * Computes what a case records, in float32 through the traced graph.
 *
 * @param readWeight values of a weight by its name
 * @throws E_MODEL_UNSUPPORTED for a model without a head
 */
export async function computeCase(
  model: Model,
  readWeight: (name: string) => Promise<Float32Array>,
  reference: ReferenceCase,
): Promise<CaseResult> {
  if (model.task === "feature-extraction") {
    throw new LockstepError("E_MODEL_UNSUPPORTED", {
      what: "verifying a model without a head (it has no loss), which",
    });
  }
  const graph = new GraphBuilder();
  const autocast: Autocast = { compute: "float32" };
  const weights = new WeightVariables(graph, model.weights, autocast);
  const { program, feeds } = trace({ graph, autocast }, () =>
    caseProgram(graph, model, weights.lookup, reference),
  );
  const steps =
    model.task === "causal-lm"
      ? trace({ graph, autocast }, () => greedyPrograms(graph, model, weights.lookup, reference))
      : [];
  const session = new Session(graph);
  try {
    await weights.load(session, readWeight);
    const { loss, logits, ...gradients } = session.run(program, feeds);
    return {
      loss: loss?.[0] as number,
      logits: logits as Float32Array,
      gradients: new Map(
        model.weights.map(({ name }) => [name, gradients[gradientFetch(name)] as Float32Array]),
      ),
      continuation: continuationOf(session, steps, reference),
    };
  } finally {
    session.close();
  }
}

const gradientFetch = (name: string): string => `grad/${name}`;

function caseProgram(
  graph: GraphBuilder,
  model: HeadedModel,
  weights: Weights,
  reference: ReferenceCase,
): { readonly program: Program; readonly feeds: Record<string, Int32Array> } {
  const shape = [reference.numRows, reference.rowLength];
  const feeds: Record<string, GraphTensor> = {
    tokens: op.placeholder(graph, "feed/case/tokens", "int32", shape),
    mask: op.placeholder(graph, "feed/case/mask", "int32", shape),
  };
  // Padding is a segment of its own.
  const inputs: ModelInputs = {
    tokens: symbolicTensor(feeds["tokens"] as GraphTensor) as tf.Tensor2D,
    segments: symbolicTensor(feeds["mask"] as GraphTensor) as tf.Tensor2D,
  };
  const job = objectiveOfCase(model, reference);
  const objective = objectiveOf(job.kind);
  const { loss: lossOf } = tracedObjective(job.kind);
  const given = objective.targetsOfLabels?.(reference);
  if (given === undefined) {
    throw new LockstepError("E_MODEL_UNSUPPORTED", { what: `Verifying the loss of ${job.kind}` });
  }
  const weight = objective.weightOf(given, job);
  const targets = Object.fromEntries(
    Object.entries(given).map(([name, values]) => [
      name,
      tf.tensor2d(values, [reference.numRows, values.length / reference.numRows], dtypeOf(values)),
    ]),
  );
  const indexOf = new Map(model.weights.map(({ name }, index) => [name, index]));
  let logits: tf.Tensor | undefined;
  const { value, grads } = tf.valueAndGrads((...values: tf.Tensor[]) => {
    const lookup: Weights = (name) => values[indexOf.get(name) as number] as tf.Tensor;
    const outputs = lossOf(model, lookup, inputs, targets, job);
    logits = tf.keep(outputs.logits());
    return tf.div(outputs.lossSum, tf.scalar(weight)) as tf.Scalar;
  })(model.weights.map(({ name }) => weights(name)));
  const fetch = (tensor: tf.Tensor, name: string): GraphTensor =>
    op.identity(op.cast(graphTensor(tensor), "float32"), { name: `fetch/case/${name}` });
  const fetches: Record<string, GraphTensor> = {
    loss: fetch(value, "loss"),
    logits: fetch(logits as unknown as tf.Tensor, "logits"),
  };
  model.weights.forEach(({ name }, index) => {
    fetches[gradientFetch(name)] = fetch(grads[index] as tf.Tensor, gradientFetch(name));
  });
  return {
    program: { name: "case", feeds, fetches },
    feeds: { tokens: reference.tokens, mask: reference.attentionMask },
  };
}

/** The objective whose loss transformers computes for the model's head. */
function objectiveOfCase(model: HeadedModel, { labelsPerRow }: ReferenceCase): ObjectiveJob {
  if (model.task === "causal-lm") return { kind: "causal_lm" };
  const { numLabels, problemType } = model;
  const guessed = numLabels === 1 ? "regression" : guessedProblem(labelsPerRow);
  return { kind: problemType ?? guessed, numLabels };
}

/** What transformers decides where the configuration names no problem_type. */
const guessedProblem = (labelsPerRow: number): string =>
  labelsPerRow === 1 ? "single_label_classification" : "multi_label_classification";

/**
 * One program a length, since dynamic rotary types depend on it. All have rows of the longest, so that what
 * XLA compiles is the same in all; no token sees those behind it.
 */
function greedyPrograms(
  graph: GraphBuilder,
  model: CausalLanguageModel,
  weights: Weights,
  { greedy }: ReferenceCase,
): readonly Program[] {
  if (greedy === undefined) return [];
  const longest = greedyRowLength(greedy);
  return Array.from(greedy.continuation, (_, index) => {
    const length = greedy.prompt.length + index;
    const name = `greedy/${length}`;
    const tokens = op.placeholder(graph, `feed/${name}`, "int32", [1, longest]);
    const hidden_1TD = model.hiddenStates(weights, {
      tokens: symbolicTensor(tokens) as tf.Tensor2D,
      sequenceLength: length,
    });
    const d = hidden_1TD.shape[2];
    const last_1D = tf.reshape(tf.slice(hidden_1TD, [0, length - 1, 0], [1, 1, d]), [1, d]);
    const logits_1V = tf.matMul(last_1D, model.outputProjection(weights), false, true);
    // A softcap is monotonic: it changes no order.
    const token = op.identity(graphTensor(tf.argMax(logits_1V, 1)), { name: `fetch/${name}` });
    return { name, feeds: { tokens }, fetches: { token } };
  });
}

/** Tokens from which the last one follows. */
const greedyRowLength = ({ prompt, continuation }: GreedyCase): number =>
  prompt.length + continuation.length - 1;

/** Each token follows from those that were chosen here, not from the recorded ones. */
function continuationOf(
  session: Session,
  steps: readonly Program[],
  { greedy }: ReferenceCase,
): Int32Array | undefined {
  if (greedy === undefined) return undefined;
  const tokens = [...greedy.prompt];
  for (const step of steps) {
    const row = new Int32Array(greedyRowLength(greedy));
    row.set(tokens);
    tokens.push(session.run(step, { tokens: row })["token"]?.[0] as number);
  }
  return Int32Array.from(tokens.slice(greedy.prompt.length));
}
