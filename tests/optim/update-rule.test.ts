import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { clipCoefficient, maxSkippedStepsInARow, UpdateRule } from "#lib/optim/index";

const settings = {
  learningRateAt: (updates: number): number => 1 / (1 + updates),
  ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, maxGradNorm: 2 },
};

test("updates are counted where they are made: rate and bias correction skip what was skipped", () => {
  const norms = fc.array(
    fc.oneof(fc.double({ min: 0, max: 1e3, noNaN: true }), fc.constant(Number.NaN)),
  );
  fc.assert(
    fc.property(norms, fc.nat(1_000), (list, before) => {
      const rule = new UpdateRule(settings, before);
      let numMade = 0;
      let inARow = 0;
      for (const [step, norm] of list.entries()) {
        inARow = Number.isFinite(norm) ? 0 : inARow + 1;
        assert.equal(rule.learningRate, settings.learningRateAt(before + numMade));
        if (inARow === maxSkippedStepsInARow) {
          assert.throws(
            () => rule.next({ step, loss: 3, norm }),
            (error) =>
              isLockstepError(error) &&
              error.code === "E_NON_FINITE_GRADIENT" &&
              error.message.includes(`step ${step + 1} `),
          );
          return;
        }
        const update = rule.next({ step, loss: 3, norm });
        assert.equal(update === undefined, !Number.isFinite(norm));
        if (update === undefined) continue;
        assert.deepEqual(update, {
          ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1 },
          learningRate: settings.learningRateAt(before + numMade),
          updateNumber: before + numMade + 1,
          gradientScale: clipCoefficient(norm, 2),
        });
        rule.made();
        numMade += 1;
        assert.equal(rule.numUpdates, before + numMade);
      }
    }),
  );
});

test("an infinite norm is skipped like one that is no number", () => {
  const rule = new UpdateRule(settings);
  for (const norm of [Number.POSITIVE_INFINITY, Number.NaN]) {
    assert.equal(rule.next({ step: 0, loss: 1, norm }), undefined);
  }
  assert.throws(
    () => rule.next({ step: 2, loss: 1, norm: Number.NaN }),
    /step 3 .* 3th step in a row/,
  );
});
