import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  clipCoefficient,
  gradScalerDefaults,
  learningRateAt,
  type ScheduleContext,
  type ScheduleName,
  scheduleNames,
  totalNorm,
} from "#lib/optim/index";
import { LossScaler } from "#lib/optim/loss-scaler";

function golden<T>(name: string): T {
  return JSON.parse(readFileSync(`tests/fixtures/golden/${name}.json`, "utf8")) as T;
}

const schedules = golden<{
  base_lr: number;
  warmup: number;
  total: number;
  schedules: Record<string, { kwargs: object; lr: number[] }>;
}>("lr_schedules");

for (const [name, { kwargs, lr }] of Object.entries(schedules.schedules)) {
  test(`the schedule ${name} equals transformers`, () => {
    const context: ScheduleContext = {
      baseLearningRate: schedules.base_lr,
      warmupSteps: schedules.warmup,
      totalSteps: schedules.total,
      kwargs,
    };
    lr.forEach((expected, t) => {
      const actual = learningRateAt(name as ScheduleName, context, t);
      assert.ok(Math.abs(actual - expected) <= 1e-18, `update ${t}: ${actual}, not ${expected}`);
    });
  });
}

const context = { baseLearningRate: 0.01, warmupSteps: 4, totalSteps: 20 };

test("cosine_warmup_with_min_lr starts above 0, peaks at the base rate and ends at the minimum", () => {
  const at = (t: number, kwargs: object) =>
    learningRateAt("cosine_warmup_with_min_lr", { ...context, kwargs }, t);
  const kwargs = { min_lr: 0.001 };
  assert.equal(at(0, kwargs), 0.0025);
  assert.equal(at(3, kwargs), 0.01);
  assert.ok(Math.abs(at(11, kwargs) - 0.0055) < 1e-15, "half way between the rate and its minimum");
  assert.ok(Math.abs(at(19, kwargs) - 0.001) < 1e-15);
  assert.equal(at(0, { ...kwargs, warmup_lr_rate: 0.5 }), 0.005);
  assert.equal(at(3, { ...kwargs, warmup_lr_rate: 0.5 }), 0.01);
});

test("warmup_stable_decay has its ramps, its plateau and its floor", () => {
  const at = (t: number, kwargs: object) =>
    learningRateAt(
      "warmup_stable_decay",
      { ...context, kwargs: { num_decay_steps: 4, min_lr_ratio: 0.2, ...kwargs } },
      t,
    );
  assert.equal(at(0, {}), 0.002);
  assert.equal(at(10, {}), 0.01);
  assert.ok(Math.abs(at(18, {}) - 0.006) < 1e-15);
  assert.ok(Math.abs(at(18, { decay_type: "linear" }) - 0.006) < 1e-15);
  assert.ok(Math.abs(at(17, { decay_type: "1-sqrt" }) - 0.006) < 1e-15);
  assert.ok(Math.abs(at(3, { warmup_type: "1-sqrt" }) - 0.006) < 1e-15);
  assert.equal(at(25, {}), 0.002);
  assert.ok(Math.abs(at(10, { num_stable_steps: 4 }) - 0.006) < 1e-15);
});

test("every schedule stays within 0 and the base rate, also past the end", () => {
  const kwargs: Partial<Record<ScheduleName, object>> = {
    cosine_with_min_lr: { min_lr_rate: 0.1 },
    cosine_warmup_with_min_lr: { min_lr_rate: 0.1 },
    warmup_stable_decay: { num_decay_steps: 3 },
  };
  for (const name of scheduleNames) {
    for (const warmupSteps of name === "slanted_triangular" ? [0] : [0, 1, 20]) {
      for (let t = 0; t < 30; t++) {
        const rate = learningRateAt(
          name,
          { ...context, warmupSteps, kwargs: kwargs[name] ?? {} },
          t,
        );
        assert.ok(rate >= 0 && rate <= 0.01, `${name} at ${t} with ${warmupSteps}: ${rate}`);
      }
    }
  }
});

test("kwargs that a schedule lacks or does not know are refused", () => {
  const refused = (name: ScheduleName, kwargs: object) =>
    assert.throws(() => learningRateAt(name, { ...context, kwargs }, 0), {
      code: "E_CONFIG_INVALID",
    });
  refused("linear", { num_cycles: 2 });
  refused("cosine_with_min_lr", {});
  refused("cosine_with_min_lr", { min_lr: 1e-4, min_lr_rate: 0.1 });
  refused("warmup_stable_decay", {});
  refused("polynomial", { lr_end: 1 });
  refused("cosine", { num_cycles: "two" });
  refused("warmup_stable_decay", { num_decay_steps: 3, decay_type: "steep" });
});

test("norm and clip coefficient equal torch's clip_grad_norm_", () => {
  const { grad, max_norm, total_norm, clipped } = golden<{
    grad: number[];
    max_norm: number;
    total_norm: number;
    clipped: number[];
  }>("clip");
  const norm = totalNorm(grad.map((g) => g * g));
  assert.equal(norm, total_norm);
  const coefficient = Math.fround(clipCoefficient(norm, max_norm));
  assert.deepEqual(
    grad.map((g) => Math.fround(g * coefficient)),
    clipped.map(Math.fround),
  );
  assert.equal(clipCoefficient(13, 0), 1);
  assert.equal(clipCoefficient(13, null), 1);
  assert.equal(clipCoefficient(0, 1), 1);
  assert.equal(totalNorm([9, 16]), 5);
});

test("the loss scale follows torch's GradScaler", () => {
  const trace = golden<{
    growth_interval: number;
    trace: { inf: number; scale_before: number; scale_after: number }[];
    state_dict: { scale: number; growth_factor: number; backoff_factor: number } & Record<
      "growth_interval" | "_growth_tracker",
      number
    >;
  }>("gradscaler");
  const scaling = { ...gradScalerDefaults, growthInterval: trace.growth_interval };
  let scaler = new LossScaler(scaling);
  for (const { inf, scale_before, scale_after } of trace.trace) {
    assert.equal(scaler.scale, scale_before);
    scaler.update(inf === 1);
    assert.equal(scaler.scale, scale_after);
    scaler = new LossScaler(scaling, scaler.state);
  }
  const { scale, growth_factor, backoff_factor, growth_interval, _growth_tracker } =
    trace.state_dict;
  assert.deepEqual(scaler.state, { scale, growthTracker: _growth_tracker });
  assert.deepEqual(
    [scaling.growthFactor, scaling.backoffFactor, scaling.growthInterval],
    [growth_factor, backoff_factor, growth_interval],
  );
});

test("the loss scale does not grow into infinity", () => {
  const scaler = new LossScaler({
    ...gradScalerDefaults,
    ...{ initialScale: 2 ** 127, growthInterval: 1 },
  });
  scaler.update(false);
  assert.equal(scaler.scale, 2 ** 127);
});
