import { test } from "node:test";
import {
  assertSteps,
  optimizerOf,
  readGolden,
  testShardsAndResume,
} from "#tests/support/optimizer-runs";

/** Written by tests/reference/make_adam_fixture.py. */
const golden = readGolden<{ readonly config: object }>("adam");

for (const { config, after } of golden.cases) {
  test(`ten steps of Adam are torch's (${JSON.stringify(config)})`, async () => {
    const optimizer = optimizerOf({ optim: "adam", ...config });
    await assertSteps(golden, after, optimizer, { matrix: [2, 4], vector: [8] });
  });
}

testShardsAndResume("Adam", optimizerOf({ optim: "adam", weight_decay: 0.1 }));
