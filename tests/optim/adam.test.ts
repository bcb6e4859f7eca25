import { test } from "node:test";
import {
  assertSteps,
  optimizerOf,
  readGolden,
  testShardsAndResume,
} from "#tests/support/optimizer-runs";

for (const [optim, name, fixture] of [
  ["adamw_torch", "AdamW", "adamw"],
  ["adam", "Adam", "adam"],
] as const) {
  /** Written by tests/reference/make_adam_fixture.py. */
  const golden = readGolden<{ readonly config: object }>(fixture);
  for (const { config, after } of golden.cases) {
    test(`ten steps of ${name} are torch's (${JSON.stringify(config)})`, async () => {
      const optimizer = optimizerOf({ optim, ...config });
      await assertSteps(golden, after, optimizer, { matrix: [2, 4], vector: [8] });
    });
  }
  testShardsAndResume(name, optimizerOf({ optim, weight_decay: 0.1 }));
}
