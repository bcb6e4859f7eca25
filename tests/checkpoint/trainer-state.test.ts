import assert from "node:assert/strict";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { readTrainerState, trainerState, writeTrainerState } from "#lib/checkpoint/index";
import { pythonFloat } from "#lib/checkpoint/python-json";
import { fixture, rejectsWith, temporaryDirectory } from "./support.js";

const run = (...parts: string[]): string => fixture("huggingface", "out_full", ...parts);

for (const name of ["trainer_state.json", "checkpoint-5/trainer_state.json"]) {
  test(`${name} of transformers, read and written again, is equal to the byte`, async (t) => {
    const directory = await temporaryDirectory(t);
    await copyFile(run(name), join(directory, "trainer_state.json"));
    const state = await readTrainerState(directory);
    // Through an object in another key order, as a run would build it.
    const reversed = Object.fromEntries(Object.entries(state).reverse());
    await writeTrainerState(directory, trainerState(reversed));
    assert.equal(
      await readFile(join(directory, "trainer_state.json"), "utf8"),
      await readFile(run(name), "utf8"),
    );
  });
}

test("a new state has every field of transformers", async () => {
  const theirs = JSON.parse(await readFile(run("trainer_state.json"), "utf8"));
  assert.deepEqual(Object.keys(trainerState()).sort(), Object.keys(theirs).sort());
});

test("floats are spelled as Python's repr spells them", () => {
  // Made with Python 3.11: [repr(x) for x in ...].
  const cases: readonly [number, string][] = [
    [0, "0.0"],
    [-0, "-0.0"],
    [1, "1.0"],
    [5e-5, "5e-05"],
    [0.0001, "0.0001"],
    [3.888888888888889e-5, "3.888888888888889e-05"],
    [1e16, "1e+16"],
    [1.5e300, "1.5e+300"],
    [123456789012345680, "1.2345678901234568e+17"],
    [9007199254740992, "9007199254740992.0"],
    [5e-324, "5e-324"],
    [-2.5, "-2.5"],
  ];
  for (const [value, text] of cases) assert.equal(pythonFloat(value), text);
});

test("NaN becomes null on the way out, and Python's NaN is understood on the way in", async (t) => {
  const directory = await temporaryDirectory(t);
  const file = join(directory, "trainer_state.json");
  const log_history = [{ step: 1, epoch: 0.5, loss: Number.NaN }];
  await writeTrainerState(directory, trainerState({ log_history, trial_name: 'é "NaN"' }));
  const text = await readFile(file, "utf8");
  assert.match(text, /"loss": null/);
  assert.match(text, /"trial_name": "\\u00e9 \\"NaN\\""/);
  await writeFile(file, text.replace('"loss": null', '"loss": NaN'));
  assert.deepEqual((await readTrainerState(directory)).log_history, [
    { step: 1, epoch: 0.5, loss: null },
  ]);
});

test("a damaged state is refused", async (t) => {
  const directory = await temporaryDirectory(t);
  await rejectsWith(readTrainerState(directory), "E_FILE_NOT_FOUND");
  for (const text of ["", "[]", '{"global_step": -1}', '{"epoch": "x"}', '{"log_history": [1]}']) {
    await writeFile(join(directory, "trainer_state.json"), text);
    await rejectsWith(readTrainerState(directory), "E_JSON_FILE");
  }
});
