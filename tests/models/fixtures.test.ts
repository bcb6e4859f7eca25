/** Every case of tests/fixtures/models: what transformers computed, through the traced graph in fp32. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openModel } from "#run/open-model";
import { openSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { computeCase, keptRows, parseCase } from "#lib/evaluation/verify/index";
import { assertClose, relativeError } from "#tests/support/compare";

const casesDirectory = join(packageRoot, "tests/fixtures/models");
const tolerance = 1e-4;

/**
 * A key's bias has no gradient: softmax does not see it. What both sides then hold is rounding, so such
 * a gradient is compared with the whole gradient's norm.
 */
const isZeroInExactArithmetic = (name: string): boolean => /(self\.key|k_lin)\.bias$/.test(name);

for (const name of readdirSync(casesDirectory).sort()) {
  test(`${name}: loss, logits, every gradient and greedy tokens of transformers`, async () => {
    const directory = join(casesDirectory, name);
    const caseFile = join(directory, "case.json");
    const reference = parseCase(caseFile, JSON.parse(readFileSync(caseFile, "utf8")));
    const { model, readWeight, close } = await openModel(directory);
    const expected = await openSafetensors(join(directory, "expected.safetensors"));
    try {
      const result = await computeCase(model, readWeight, reference);
      assert.ok(Math.abs(result.loss / reference.loss - 1) < tolerance, `loss ${result.loss}`);
      const isReal =
        model.task === "causal-lm"
          ? reference.attentionMask
          : new Int32Array(reference.numRows).fill(1);
      const logits = keptRows(await expected.readFloat32("logits"), isReal);
      assertClose(keptRows(result.logits, isReal), logits, tolerance, "logits");

      const recorded = [...expected.tensors.keys()].filter((key) => key.startsWith("grad."));
      assert.deepEqual(
        recorded.map((key) => key.slice(5)).sort(),
        [...result.gradients.keys()].sort(),
      );
      const gradients = new Map<string, Float32Array>();
      for (const key of recorded) gradients.set(key.slice(5), await expected.readFloat32(key));
      const whole = Math.hypot(...[...gradients.values()].map((values) => Math.hypot(...values)));
      for (const [weight, values] of gradients) {
        const actual = result.gradients.get(weight) as Float32Array;
        if (isZeroInExactArithmetic(weight)) {
          const size = Math.hypot(...actual) + Math.hypot(...values);
          if (size < tolerance * whole) continue;
        }
        const error = relativeError(actual, values);
        assert.ok(error <= tolerance, `gradient of ${weight}: relative error ${error}`);
      }
      assert.deepEqual(result.continuation, reference.greedy?.continuation);
    } finally {
      await close();
      await expected.close();
    }
  });
}
