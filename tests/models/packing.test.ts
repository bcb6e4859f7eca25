/** Samples packed into one row against the same samples in rows of their own, for every causal case. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { openModel } from "#run/open-model";
import { packageRoot } from "#lib/core/paths";
import type { CausalLanguageModel, Model, ModelInputs, Weights } from "#lib/models/index";
import { capLogits, linearCrossEntropy } from "#lib/ops/index";
import { type Argument, compileFunction } from "#tests/support/compiled-function";
import { assertClose } from "#tests/support/compare";

const casesDirectory = join(packageRoot, "tests/fixtures/models");
const isCausal = (name: string): boolean =>
  readFileSync(join(casesDirectory, name, "config.json"), "utf8").match(
    /ForCausalLM|LMHeadModel/,
  ) !== null;

const samples = [
  [7, 12, 33, 4, 25, 9, 41],
  [19, 3, 3, 28, 14],
  [40, 11, 22, 6, 30, 8, 17, 2],
] as const;
const longest = Math.max(...samples.map((sample) => sample.length));
const numPadding = 3;

interface Batch {
  readonly tokens: readonly number[];
  readonly targets: readonly number[];
  readonly segments: readonly number[];
  readonly positions: readonly number[];
}

const targetsOf = (sample: readonly number[]): number[] => [...sample.slice(1), -100];

/** A row of its own, as long as that of all samples: rows of one shape are compiled once. */
const single = (sample: readonly number[]): Batch =>
  packed([sample], samples.flat().length + numPadding - sample.length);

/** All samples in one row, and padding behind them. */
function packed(list: readonly (readonly number[])[], numPaddingTokens = numPadding): Batch {
  const padding = Array<number>(numPaddingTokens).fill(0);
  return {
    tokens: [...list.flat(), ...padding],
    targets: [...list.flatMap(targetsOf), ...padding.map(() => -100)],
    segments: [...list.flatMap((sample, i) => sample.map(() => i + 1)), ...padding],
    positions: [...list.flatMap((sample) => sample.map((_, i) => i)), ...padding],
  };
}

/** Sum of losses, logits, and the gradients of all weights of one row. */
async function runner(
  model: CausalLanguageModel,
  readWeight: (name: string) => Promise<Float32Array>,
) {
  const weights: Argument[] = [];
  for (const { name, shape } of model.weights)
    weights.push({ data: await readWeight(name), shape });
  const indexOf = new Map(model.weights.map(({ name }, index) => [name, index]));
  return (batch: Batch): Float32Array[] => {
    const row = (values: readonly number[]): Argument => ({
      data: Int32Array.from(values),
      shape: [1, values.length],
    });
    const run = compileFunction((tokens, targets, segments, positions, ...xs) => {
      const inputs: ModelInputs = {
        tokens: tokens as tf.Tensor2D,
        segments: segments as tf.Tensor2D,
        positions: positions as tf.Tensor2D,
        sequenceLength: longest,
      };
      const targets_M = tf.reshape(targets as tf.Tensor, [batch.tokens.length]) as tf.Tensor1D;
      const outputs = (...values: tf.Tensor[]) => {
        const lookup: Weights = (name) => values[indexOf.get(name) as number] as tf.Tensor;
        const hidden = model.hiddenStates(lookup, inputs);
        const hidden_MD = tf.reshape(hidden, [hidden.shape[1], hidden.shape[2]]) as tf.Tensor2D;
        return { hidden_MD, table_VD: model.outputProjection(lookup) };
      };
      const { value, grads } = tf.valueAndGrads((...values: tf.Tensor[]) => {
        const { hidden_MD, table_VD } = outputs(...values);
        return linearCrossEntropy(hidden_MD, table_VD, targets_M, {
          softcap: model.logitSoftcap,
        });
      })(xs);
      const { hidden_MD, table_VD } = outputs(...xs);
      const logits = capLogits(tf.matMul(hidden_MD, table_VD, false, true), model.logitSoftcap);
      return [value, logits, ...grads];
    });
    const results = run(
      row(batch.tokens),
      row(batch.targets),
      row(batch.segments),
      row(batch.positions),
      ...weights,
    );
    return results.map((result) => result.data as Float32Array);
  };
}

function causal(model: Model): CausalLanguageModel {
  assert.equal(model.task, "causal-lm");
  return model as CausalLanguageModel;
}

for (const name of readdirSync(casesDirectory).filter(isCausal).sort()) {
  test(`${name}: a packed row gives the samples' logits, the sum of their losses and gradients`, async () => {
    const { model, readWeight, close } = await openModel(join(casesDirectory, name));
    try {
      const run = await runner(causal(model), readWeight);
      const [lossSum, logits, ...gradients] = run(packed(samples)) as [
        Float32Array,
        ...Float32Array[],
      ];
      const apart = samples.map((sample) => run(single(sample)));
      assertClose(
        lossSum,
        [apart.reduce((sum, [loss]) => sum + ((loss as Float32Array)[0] as number), 0)],
        1e-5,
        "loss",
      );
      const logitsApart = apart.flatMap(([, rows], i) => [
        ...(rows as Float32Array).subarray(0, (samples[i]?.length ?? 0) * model.vocabSize),
      ]);
      const real = (logits as Float32Array).subarray(0, logitsApart.length);
      assertClose(real, logitsApart, 1e-5, "logits");
      gradients.forEach((gradient, weight) => {
        const sum = gradient.map((_, element) =>
          apart.reduce(
            (total, result) => total + ((result[weight + 2] as Float32Array)[element] as number),
            0,
          ),
        );
        assertClose(gradient, sum, 2e-5, `gradient ${model.weights[weight]?.name}`);
      });

      // Another second sample changes no bit of its neighbours' logits.
      const [first, second, third] = samples;
      const [, moved] = run(packed([first, second.map((token) => token + 1), third]));
      const width = model.vocabSize;
      const between = first.length * width;
      const after = between + second.length * width;
      assert.deepEqual(moved?.subarray(0, between), logits?.subarray(0, between));
      assert.deepEqual(moved?.subarray(after), logits?.subarray(after));
      assert.notDeepEqual(moved?.subarray(between, after), logits?.subarray(between, after));
    } finally {
      await close();
    }
  });
}
