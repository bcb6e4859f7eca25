/** Every case in mixed precision: near what transformers computed in float32. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { openModel } from "#run/open-model";
import { openSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { parseCase } from "#lib/evaluation/verify/index";
import type { Model, ModelInputs, Weights } from "#lib/models/index";
import { capLogits } from "#lib/ops/index";
import { type Argument, compileFunction } from "#tests/support/compiled-function";
import { relativeError } from "#tests/support/compare";

const casesDirectory = join(packageRoot, "tests/fixtures/models");
/** Products round to 8 or 11 bits; the random weights of the cases are larger than trained ones. */
const logitTolerances = { bfloat16: 0.05, float16: 0.01 } as const;

function logitsOf(model: Model, weights: Weights, inputs: ModelInputs): tf.Tensor {
  const hidden_BTD = model.hiddenStates(weights, inputs);
  switch (model.task) {
    case "causal-lm": {
      const [b, t, d] = hidden_BTD.shape;
      const rows_MD = tf.reshape(hidden_BTD, [b * t, d]) as tf.Tensor2D;
      const product = tf.matMul(rows_MD, model.outputProjection(weights), false, true);
      return capLogits(product, model.logitSoftcap);
    }
    case "sequence-classification":
      return model.logits(weights, inputs, hidden_BTD);
    case "feature-extraction":
      return hidden_BTD;
  }
}

const cases = readdirSync(casesDirectory)
  .sort()
  .flatMap((name) => (["bfloat16", "float16"] as const).map((compute) => ({ name, compute })));

for (const { name, compute } of cases) {
  test(`${name}: logits in ${compute} are near, and have a finite gradient`, async () => {
    const directory = join(casesDirectory, name);
    const caseFile = join(directory, "case.json");
    const reference = parseCase(caseFile, JSON.parse(readFileSync(caseFile, "utf8")));
    const expected = await openSafetensors(join(directory, "expected.safetensors"));
    const { model, readWeight, close } = await openModel(directory);
    try {
      const shape = [reference.numRows, reference.rowLength];
      const args: Argument[] = [
        { data: reference.tokens, shape },
        { data: reference.attentionMask, shape },
      ];
      for (const spec of model.weights) {
        args.push({ data: await readWeight(spec.name), shape: spec.shape });
      }
      const indexOf = new Map(model.weights.map((spec, index) => [spec.name, index]));
      const run = compileFunction(
        (tokens, segments, ...weights) => {
          const inputs = { tokens: tokens as tf.Tensor2D, segments: segments as tf.Tensor2D };
          const of = (values: readonly tf.Tensor[]): tf.Tensor =>
            logitsOf(model, (key) => values[indexOf.get(key) as number] as tf.Tensor, inputs);
          const gradients = tf.grads((...values: tf.Tensor[]) => tf.sum(of(values)))(weights);
          return [of(weights), ...gradients];
        },
        { compute },
      );
      const [logits, ...gradients] = run(...args).map(({ data }) => data as Float32Array);
      const width = (logits?.length ?? 0) / reference.tokens.length;
      const exact = await expected.readFloat32("logits");
      // Only real positions mean something.
      const masked = (values: Float32Array): Float32Array =>
        model.task === "causal-lm"
          ? values.map((x, i) => x * (reference.attentionMask[Math.floor(i / width)] as number))
          : values;
      const error = relativeError(masked(logits as Float32Array), masked(exact));
      assert.ok(
        error > 1e-6 && error < logitTolerances[compute],
        `logits: relative error ${error}`,
      );
      assert.equal(gradients.length, model.weights.length);
      for (const gradient of gradients) assert.ok(gradient.every(Number.isFinite));
    } finally {
      await close();
      await expected.close();
    }
  });
}
