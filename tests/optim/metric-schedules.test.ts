import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import {
  learningRateAt,
  type MetricScheduleName,
  type MetricScheduleState,
  metricSchedule,
  readScheduleState,
  type ScheduleContext,
  type ScheduleName,
  StepUpdate,
  type UpdatedShards,
} from "#lib/optim/index";

/** Written by tests/reference/make_schedules_fixture.py. */
const golden = JSON.parse(readFileSync("tests/fixtures/golden/metric_schedules.json", "utf8")) as {
  readonly learning_rate: number;
  readonly metric_schedules: readonly {
    readonly name: MetricScheduleName;
    readonly kwargs: object;
    readonly metrics: readonly (number | null)[];
    readonly rates_after: readonly number[];
  }[];
  readonly warmup_steps: number;
  readonly total_steps: number;
  readonly schedules: readonly {
    readonly name: ScheduleName;
    readonly kwargs: object;
    readonly rates: readonly number[];
  }[];
};

for (const { name, kwargs, metrics, rates_after: expected } of golden.metric_schedules) {
  test(`${name} has the trace of transformers: ${JSON.stringify(kwargs)}`, () => {
    const learningRate = golden.learning_rate;
    const schedule = metricSchedule(name, "loss", { learningRate, kwargs });
    let state = schedule.start;
    const rates = metrics.map((metric) => {
      state = schedule.next(state, metric ?? Number.NaN);
      // As a checkpoint holds it.
      const read = readScheduleState(JSON.parse(JSON.stringify(state)));
      assert.ok(read !== undefined);
      assert.deepEqual(read, state);
      state = read;
      return state.learningRate;
    });
    assert.deepEqual(rates, expected);
  });
}

test("the scripted metrics make rates fall, rise and begin anew", () => {
  const all = golden.metric_schedules.map(({ rates_after: rates }) => rates);
  const numChanging = all.filter((rates) => new Set(rates).size > 1).length;
  // With their defaults both are too patient for so few evaluations.
  assert.equal(numChanging, all.length - 2);
  const rises = all.filter((rates) => rates.some((rate) => rate > golden.learning_rate));
  assert.ok(rises.length >= 2);
});

for (const { name, kwargs, rates } of golden.schedules) {
  test(`the schedule ${name} equals transformers with ${JSON.stringify(kwargs)}`, () => {
    const context: ScheduleContext = {
      baseLearningRate: golden.learning_rate,
      warmupSteps: golden.warmup_steps,
      totalSteps: golden.total_steps,
      kwargs,
    };
    rates.forEach((expected, t) => {
      const actual = learningRateAt(name, context, t);
      assert.ok(Math.abs(actual - expected) <= 1e-17, `update ${t}: ${actual}, not ${expected}`);
    });
  });
}

test("arguments that a schedule of metrics does not have, or of another type, are refused by name", () => {
  for (const [name, kwargs] of [
    ["reduce_lr_on_plateau", { max_lr: 1 }],
    ["reduce_lr_on_plateau", { factor: 1 }],
    ["reduce_lr_on_plateau", { mode: "up" }],
    ["greedy", { verbose: true }],
    ["greedy", { patience: "10" }],
    ["reduce_lr_on_plateau", { cooldown: -1 }],
    ["reduce_lr_on_plateau", { factor: -0.5 }],
    ["greedy", { factor: 0 }],
    ["greedy", { smooth: true, window_size: 0 }],
  ] as const) {
    assert.throws(() => metricSchedule(name, "loss", { learningRate: 1, kwargs }), {
      code: "E_CONFIG_INVALID",
      message: new RegExp(`lr_scheduler_kwargs must be mode, .* for ${name}`),
    });
  }
});

const layout = buildParameterLayout([{ name: "w", shape: [1, 8] }], "float32");
const shards: UpdatedShards = {
  reduce: async () => [1],
  measure: async () => [],
  apply: async () => {},
  discard: async () => {},
};

test("updates take the rate that the evaluations before left, and go on from what was remembered", async () => {
  const kwargs = { patience: 0, factor: 0.5 };
  const settings = {
    optimizer: { name: "adamw", settings: {} },
    learningRateAt: () => Number.NaN,
    metricSchedule: metricSchedule("reduce_lr_on_plateau", "accuracy", {
      ...{ learningRate: 1, kwargs: { ...kwargs, mode: "max" } },
    }),
    maxGradNorm: null,
  };
  const rateOf = async (updates: StepUpdate): Promise<number> =>
    (await updates.run(shards, { step: 0, loss: 1 })).learningRate;
  const updates = new StepUpdate(layout, settings);
  assert.equal(await rateOf(updates), 1);
  updates.evaluated({ loss: 1, metrics: { accuracy: 0.5 } });
  assert.equal(await rateOf(updates), 1);
  updates.evaluated({ loss: 0.5, metrics: { accuracy: 0.5 } });
  assert.equal(await rateOf(updates), 0.5);
  const resumed = new StepUpdate(layout, settings, {
    numUpdates: updates.numUpdates,
    schedule: JSON.parse(JSON.stringify(updates.schedule)) as MetricScheduleState,
  });
  for (const each of [updates, resumed]) {
    each.evaluated({ loss: 0.1, metrics: {} });
    assert.equal(await rateOf(each), 0.25, "a metric that is not there is no better");
    each.evaluated({ loss: 0.1, metrics: { accuracy: 0.9 } });
    assert.equal(await rateOf(each), 0.25);
  }
  assert.deepEqual(resumed.schedule, updates.schedule);
});

test("the slanted triangle of ULMFiT rises for a tenth of the run, and falls for the rest", () => {
  const context = { baseLearningRate: 0.01, warmupSteps: 0, totalSteps: 100 };
  // The paper's formula, which holds where cut_frac of the updates is a whole number.
  const [cut, fraction, ratio] = [10, 0.1, 32];
  for (let t = 0; t <= 100; t++) {
    const p = t < cut ? t / cut : 1 - (t - cut) / (cut * (1 / fraction - 1));
    const expected = (0.01 * (1 + p * (ratio - 1))) / ratio;
    assert.ok(
      Math.abs(learningRateAt("slanted_triangular", context, t) - expected) < 1e-17,
      `${t}`,
    );
  }
  const at = (t: number, kwargs: object, totalSteps = 10): number =>
    learningRateAt("slanted_triangular", { ...context, totalSteps, kwargs }, t);
  assert.equal(at(5, { cut_frac: 0.5, ratio: 10 }), 0.01);
  assert.ok(Math.abs(at(0, { cut_frac: 0.5, ratio: 10 }) - 0.001) < 1e-18);
  for (let t = 0; t < 25; t++) {
    const rate = at(t, {}, 19);
    assert.ok(rate >= 0.01 / 32 && rate <= 0.01, `${t}: ${rate}`);
  }
  assert.throws(() => at(0, { cut_frac: 1 }), { code: "E_CONFIG_INVALID" });
  assert.throws(() => learningRateAt("slanted_triangular", { ...context, warmupSteps: 5 }, 0), {
    code: "E_CONFIG_CONFLICT",
  });
});
