// Shape legend: M rows, V vocabulary.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { linearCrossEntropy, linearTokenFigures } from "#lib/ops/index";
import { compileFunction } from "#tests/support/compiled-function";
import { assertClose, testValues } from "#tests/support/compare";
import { assertTracedIsEager, intArg } from "#tests/support/kernel-case";

const numRows = 8;

/** Logits of a model that is sure of one token: the tail is long, and each of its shares is small. */
function peakedLogit(row: number, token: number, vocab: number): number {
  if (token === (row * 6007) % vocab) return 18;
  return Math.fround(2.5 * Math.sin((row + 1) * 12.9898 + token * 78.233) + 1.5);
}

// The second does not divide into lanes.
for (const [vocab, labelSmoothing] of [
  [49_152, 0],
  [50_257, 0],
  [50_257, 0.1],
] as const) {
  const smoothed = labelSmoothing === 0 ? "" : `, smoothed by ${labelSmoothing},`;
  test(`the loss and the gradient over ${vocab} words${smoothed} have no bias`, () => {
    // With the unit matrix as hidden states the logits are the weights, exactly.
    const unit = Float32Array.from({ length: numRows ** 2 }, (_, i) =>
      i % (numRows + 1) === 0 ? 1 : 0,
    );
    const weight = Float32Array.from({ length: vocab * numRows }, (_, i) =>
      peakedLogit(i % numRows, Math.floor(i / numRows), vocab),
    );
    const targets = Int32Array.from({ length: numRows }, (_, row) => (row * 4001 + 17) % vocab);
    const lossAndGrads = compileFunction((hidden, table, labels) => {
      const { value, grads } = tf.valueAndGrads((h: tf.Tensor, w: tf.Tensor) =>
        linearCrossEntropy(h as tf.Tensor2D, w as tf.Tensor2D, labels as tf.Tensor1D, {
          labelSmoothing,
        }),
      )([hidden as tf.Tensor, table as tf.Tensor]);
      return [value, grads[1] as tf.Tensor];
    });
    const [loss, dWeight] = lossAndGrads(
      { data: unit, shape: [numRows, numRows] },
      { data: weight, shape: [vocab, numRows] },
      { data: targets, shape: [numRows] },
    );
    let expected = 0;
    for (let row = 0; row < numRows; row++) {
      let [sum, logitSum] = [0, 0];
      for (let token = 0; token < vocab; token++) {
        sum += Math.exp((weight[token * numRows + row] as number) - 18);
        logitSum += weight[token * numRows + row] as number;
      }
      const target = weight[(targets[row] as number) * numRows + row] as number;
      const spread = (labelSmoothing / vocab) * logitSum;
      expected += Math.log(sum) + 18 - (1 - labelSmoothing) * target - spread;
    }
    const actual = loss?.data[0] as number;
    assert.ok(Math.abs(actual - expected) < 4e-7 * expected, `${actual} for ${expected}`);
    // Every row's shares add up to one, less one at the target.
    let total = 0;
    assert.ok(dWeight !== undefined);
    for (const share of dWeight.data) total += share;
    assert.ok(Math.abs(total) / numRows < 4e-7, `a row's gradient adds up to ${total / numRows}`);
  });
}

test("more rows than exist at once: weights, targets and a z-loss stay with their rows", () => {
  const [rows, width, vocab] = [1100, 4, 7];
  assertTracedIsEager({
    name: "LinearCrossEntropy in two chunks",
    inputs: [
      [rows, width],
      [vocab, width],
    ],
    constants: [
      intArg(
        Array.from({ length: rows }, (_, i) => (i % 5 === 0 ? -100 : (i * 3) % vocab)),
        [rows],
      ),
      { data: Float32Array.from({ length: rows }, (_, i) => (i % 64) / 16), shape: [rows] },
    ],
    fn: (hidden, table, targets, weights) =>
      linearCrossEntropy(hidden as tf.Tensor2D, table as tf.Tensor2D, targets as tf.Tensor1D, {
        ...{ zLossWeight: 0.1, softcap: 2, weights: weights as tf.Tensor1D },
      }),
  });
});

for (const softcap of [null, 1.5]) {
  test(`mean logits, entropies and the likeliest tokens are those of their definitions, softcap ${softcap}`, () => {
    // More rows than exist at once, and a vocabulary that does not divide into lanes.
    const [rows, width, vocab] = [1100, 4, 300];
    const hidden = testValues(rows * width, 1);
    const table = testValues(vocab * width, 2).map((value) => 3 * value);
    // Every word has a twin of the same logits: of two that are the likeliest the first counts.
    const half = vocab / 2;
    table.copyWithin(half * width, 0, half * width);
    const expected = new Float32Array(rows * 3);
    const targets = new Int32Array(rows);
    for (let row = 0; row < rows; row++) {
      const logits = Array.from({ length: vocab }, (_, token) => {
        let sum = 0;
        for (let i = 0; i < width; i++) {
          sum += (hidden[row * width + i] as number) * (table[token * width + i] as number);
        }
        return softcap === null ? sum : softcap * Math.tanh(sum / softcap);
      });
      const best = logits.indexOf(Math.max(...logits));
      targets[row] = [best, best + half, (row * 7) % vocab][row % 3] as number;
      const partition = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
      const entropy = logits.reduce((sum, logit) => {
        const share = Math.exp(logit) / partition;
        return sum - share * Math.log(share);
      }, 0);
      const mean = logits.reduce((sum, logit) => sum + logit, 0) / vocab;
      expected.set([mean, entropy, targets[row] === best ? 1 : 0], row * 3);
    }
    const args = [
      { data: hidden, shape: [rows, width] },
      { data: table, shape: [vocab, width] },
      { data: targets, shape: [rows] },
    ];
    const figures = (h: tf.Tensor, w: tf.Tensor, t: tf.Tensor): tf.Tensor[] => [
      linearTokenFigures(h as tf.Tensor2D, w as tf.Tensor2D, t as tf.Tensor1D, softcap),
    ];
    const [traced] = compileFunction(figures as (...args: tf.Tensor[]) => tf.Tensor[])(...args);
    assertClose(traced?.data as Float32Array, expected, 1e-5, "traced");
    void tf.setBackend("cpu");
    const eager = tf.tidy(() =>
      figures(
        ...([tf.tensor(hidden, [rows, width]), tf.tensor(table, [vocab, width])] as const),
        tf.tensor(targets, [rows], "int32"),
      )[0]?.dataSync(),
    );
    assertClose(eager as Float32Array, expected, 1e-5, "out of elementary ops");
  });
}
