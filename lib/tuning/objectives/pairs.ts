// Shape legend: B pairs, P = 2B sequences, the chosen ones first, T tokens, M = P*T, D model width, K figures.
import * as tf from "@tensorflow/tfjs-core";
import {
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
} from "#lib/core/batch";
import type { ModelInputs, Weights } from "#lib/models/index";
import { capLogits, linearTokenFigures, linearTokenLosses } from "#lib/ops/index";
import { causalModel } from "./heads.js";
import type { HeadedModel } from "./objective.js";

export type PairTargets = Readonly<Record<string, tf.Tensor2D>>;

/** The sequences of a batch of pairs. Padding is never seen: it stands behind, and is no target. */
export function sequencesOf(
  { tokens, dropout }: ModelInputs,
  { [rejectedTokensField.name]: rejected }: PairTargets,
): ModelInputs {
  // A row of padding has no ids of tokens.
  const ids_BT = tf.maximum(rejected as tf.Tensor2D, tf.scalar(0, "int32"));
  return {
    tokens: tf.concat([tokens, ids_BT], 0) as tf.Tensor2D,
    ...(dropout === undefined ? {} : { dropout }),
  };
}

/** The next tokens that are learnt of each sequence, int32 [P, T]. */
export const answerTargets = (targets: PairTargets): tf.Tensor2D =>
  tf.concat(
    [
      targets[nextTokenField.name] as tf.Tensor2D,
      targets[rejectedTargetsField.name] as tf.Tensor2D,
    ],
    0,
  ) as tf.Tensor2D;

/**
 * Minus the log-probability of each target, float32 [P, T], with the logits of the chosen sequences, and what is told
 * of each sequence's targets together.
 */
export function targetLosses(
  model: HeadedModel,
  weights: Weights,
  inputs: ModelInputs,
  targets_PT: tf.Tensor2D,
): {
  readonly losses_PT: tf.Tensor2D;
  readonly logits: () => tf.Tensor2D;
  /** Sums over a sequence's targets: of mean logits, of entropies, and of targets that are the likeliest, [P] each. */
  readonly figures: () => readonly [
    logits_P: tf.Tensor,
    entropies_P: tf.Tensor,
    right_P: tf.Tensor,
  ];
} {
  const causal = causalModel(model);
  const [p, t] = targets_PT.shape;
  const hidden_PTD = causal.hiddenStates(weights, inputs);
  const d = hidden_PTD.shape[2];
  const hidden_MD = tf.reshape(hidden_PTD, [p * t, d]) as tf.Tensor2D;
  const projection_VD = causal.outputProjection(weights);
  const targets_M = tf.reshape(targets_PT, [p * t]) as tf.Tensor1D;
  const losses_M = linearTokenLosses(hidden_MD, projection_VD, targets_M, {
    softcap: causal.logitSoftcap,
  });
  return {
    losses_PT: tf.reshape(losses_M, [p, t]) as tf.Tensor2D,
    logits: () => {
      const chosen_MD = tf.slice(hidden_MD, [0, 0], [(p * t) / 2, d]);
      return capLogits(
        tf.matMul(chosen_MD as tf.Tensor2D, projection_VD, false, true),
        causal.logitSoftcap,
      ) as tf.Tensor2D;
    },
    figures: () => {
      const figures_M3 = linearTokenFigures(
        ...([hidden_MD, projection_VD, targets_M] as const),
        causal.logitSoftcap,
      );
      const counted_M3 = tf.mul(figures_M3, tf.reshape(isTarget(targets_M), [p * t, 1]));
      const sums_P3 = tf.sum(tf.reshape(counted_M3, [p, t, 3]), 1);
      const column = (index: number): tf.Tensor =>
        tf.reshape(tf.slice(sums_P3, [0, index], [p, 1]), [p]);
      return [column(0), column(1), column(2)];
    },
  };
}

/** 1 where a target counts, float32. */
export const isTarget = (targets: tf.Tensor): tf.Tensor =>
  tf.cast(tf.greaterEqual(targets, tf.scalar(0, "int32")), "float32");

/** 1 for each pair, 0 for a row of padding, float32 [B]. */
export function isPair({ [pairLengthsField.name]: lengths_B2 }: PairTargets): tf.Tensor1D {
  const [b] = (lengths_B2 as tf.Tensor2D).shape;
  const chosen_B = tf.reshape(tf.slice(lengths_B2 as tf.Tensor2D, [0, 0], [b, 1]), [b]);
  return tf.cast(tf.greater(chosen_B, tf.scalar(0, "int32")), "float32") as tf.Tensor1D;
}

/** The values of the chosen and of the rejected sequences, [B] each. */
export function sides(values_P: tf.Tensor): readonly [tf.Tensor1D, tf.Tensor1D] {
  const b = values_P.size / 2;
  const flat_P = tf.reshape(values_P, [2 * b]) as tf.Tensor1D;
  return [tf.slice(flat_P, [0], [b]), tf.slice(flat_P, [b], [b])];
}

/** log(sigmoid(x)); its slope at 0, where a run begins, is a half. */
export const logSigmoid = (x: tf.Tensor): tf.Tensor => tf.neg(tf.softplus(tf.neg(x)));

/** Figures of each pair side by side, [B, K]. */
export const figuresOf = (...figures_B: readonly tf.Tensor[]): tf.Tensor =>
  tf.concat(
    figures_B.map((figure) => tf.reshape(figure, [figure.size, 1])),
    1,
  );
