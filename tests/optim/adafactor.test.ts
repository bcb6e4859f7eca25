import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertSteps,
  freshRun,
  optimizerOf,
  readGolden,
  savedState,
  testShardsAndResume,
} from "#tests/support/optimizer-runs";

/** Written by tests/reference/make_adafactor_fixture.py. */
const golden = readGolden<{ readonly config: object }>("adafactor");

for (const { config, after } of golden.cases) {
  test(`ten steps of Adafactor are transformers' (${JSON.stringify(config)})`, async () => {
    const shapes = { matrix: [3, 5], stack: [2, 3, 4], wide: [1, 7], vector: [8] };
    const optimizer = optimizerOf({ optim: "adafactor", ...config });
    const run = await assertSteps(golden, after, optimizer, shapes);
    const sizes = Object.entries(run.tensorStates).map(([name, { length }]) => [name, length]);
    assert.deepEqual(Object.fromEntries(sizes), {
      "matrix.second_moment_rows": 3,
      "matrix.second_moment_columns": 5,
      "stack.second_moment_rows": 6,
      "stack.second_moment_columns": 8,
      "wide.second_moment_rows": 1,
      "wide.second_moment_columns": 7,
      "vector.second_moment": 8,
    });
  });
}

const adafactor = (args: string | null) =>
  optimizerOf({ optim: "adafactor", optim_args: args, weight_decay: 0.1 });

testShardsAndResume("Adafactor", adafactor(null));
testShardsAndResume("with all it has", adafactor("beta1=0.9,scale_parameter=True"));

test("a checkpoint with other statistics of tensors, or none, is refused", async (t) => {
  const [plain, other] = [
    await freshRun(adafactor(null)),
    await freshRun(optimizerOf({ optim: "sgd" })),
  ];
  const ofAdafactor = await savedState(t, plain);
  await assert.rejects(ofAdafactor.readTensorStates({}), {
    code: "E_RESUME_MISMATCH",
    message: /kept long-vector\.second_moment of 66000, the run's keeps none/,
  });
  const rows = { ...plain.tensorStates, "wide.second_moment_rows": new Float32Array(3) };
  await assert.rejects(ofAdafactor.readTensorStates(rows), /of 2, the run's keeps one of 3/);
  const more = { ...plain.tensorStates, "more.second_moment": new Float32Array(1) };
  await assert.rejects(ofAdafactor.readTensorStates(more), /kept no more\.second_moment/);
  const ofSgd = await savedState(t, other);
  await ofSgd.readTensorStates({});
  await assert.rejects(ofSgd.readTensorStates(plain.tensorStates), {
    code: "E_RESUME_MISMATCH",
    message: /kept nothing of whole tensors/,
  });
});
