// Shape legend: B pairs, P = 2B sequences, the chosen ones first, T tokens.
import * as tf from "@tensorflow/tfjs-core";
import { ignoredTarget, pairLengthsField, rejectedTargetsField } from "#lib/core/batch";
import { nllTokensOf } from "#lib/objectives/orpo";
import { betaOf } from "#lib/objectives/preference-keys";
import type { TracedObjective } from "./objective.js";
import {
  answerTargets,
  figuresOf,
  isPair,
  isTarget,
  logSigmoid,
  type PairTargets,
  sequencesOf,
  sides,
  targetLosses,
} from "./pairs.js";

/** Mean log-likelihoods of a token nearer to 0 than this are taken for it: the odds of 1 are infinite. */
const leastUncertainty = -1e-6;

/**
 * Of each pair the mean loss of a token of the chosen sequence, less beta times the log-sigmoid of the log odds ratio
 * of its answers: with the sequence's prompt as TRL has it of a pair, without as LLaMA-Factory.
 */
export const orpo: TracedObjective = {
  kind: "orpo",
  fits: ({ task }) => task === "causal-lm",
  loss(model, weights, inputs, targets, job) {
    const beta = tf.scalar(betaOf(job));
    const answers_PT = answerTargets(targets);
    const ofAnswers = nllTokensOf(job) === "answer";
    const learnt_PT = ofAnswers ? answers_PT : withPrompts(inputs.tokens, targets);
    const sequences = sequencesOf(inputs, targets);
    const { losses_PT, logits } = targetLosses(model, weights, sequences, learnt_PT);
    const isAnswer_PT = isTarget(answers_PT);
    const mean = (losses: tf.Tensor, counted: tf.Tensor): tf.Tensor =>
      tf.div(tf.sum(tf.mul(losses, counted), 1), tf.maximum(tf.sum(counted, 1), tf.scalar(1)));
    const logps_P = tf.neg(mean(losses_PT, isAnswer_PT));
    const [nll_B] = sides(mean(losses_PT, isTarget(learnt_PT)));
    const [chosen_B, rejected_B] = sides(tf.sub(logps_P, logOneMinusExp(logps_P)));
    const logOdds_B = tf.sub(chosen_B, rejected_B);
    const ratio_B = logSigmoid(logOdds_B);
    const losses_B = tf.sub(nll_B, tf.mul(ratio_B, beta));
    return {
      lossSum: tf.sum(tf.mul(losses_B, isPair(targets))) as tf.Scalar,
      logits,
      outputs: () =>
        figuresOf(
          ...sides(tf.mul(logps_P, beta)),
          ...sides(logps_P),
          ...[nll_B, logOdds_B, ratio_B],
        ),
    };
  },
};

/** Every next token of the chosen sequences, and those of the rejected answers, int32 [P, T]. */
const withPrompts = (tokens_BT: tf.Tensor2D, targets: PairTargets): tf.Tensor2D =>
  tf.concat(
    [nextTokens(tokens_BT, targets), targets[rejectedTargetsField.name] as tf.Tensor2D],
    0,
  ) as tf.Tensor2D;

/** Every next token of the chosen sequences, int32 [B, T]. */
function nextTokens(tokens_BT: tf.Tensor2D, { [pairLengthsField.name]: lengths }: PairTargets) {
  const [b, t] = tokens_BT.shape;
  const none_B1 = tf.fill([b, 1], ignoredTarget, "int32");
  const next_BT = tf.concat([tf.slice(tokens_BT, [0, 1], [b, t - 1]), none_B1], 1);
  const lengths_B1 = tf.slice(lengths as tf.Tensor2D, [0, 0], [b, 1]);
  const places_1T = tf.tensor2d([...Array(t).keys()], [1, t], "int32");
  const hasNext_BT = tf.less(places_1T, tf.sub(lengths_B1, tf.scalar(1, "int32")));
  return tf.where(hasNext_BT, next_BT, tf.fill([b, t], ignoredTarget, "int32"));
}

/** log(1 - e^x) of x below 0. */
const logOneMinusExp = (x: tf.Tensor): tf.Tensor =>
  tf.log(tf.neg(tf.expm1(tf.minimum(x, tf.scalar(leastUncertainty)))));
