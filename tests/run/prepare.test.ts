import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { TokenStore } from "#lib/data/token-store";
import { OpenResources } from "#run/open-resources";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { caseError, prepareCase } from "#tests/support/case-run";

let job: CaseJob;
before(async () => {
  job = await createCaseJob("11-fewer-rows-than-a-step");
});
after(() => job.remove());

/** Its first rate is 0 / 0. */
const schedule = { lr_scheduler_type: "inverse_sqrt", lr_scheduler_kwargs: { timescale: 0 } };

const openFiles = (): number => readdirSync("/proc/self/fd").length;

for (const [when, settings, code] of [
  ["the data is read", { validation_split: 0, eval_strategy: "steps" }, "E_CONFIG_CONFLICT"],
  ["the model is made", { metric_for_best_model: "accuracy" }, "E_CONFIG_CONFLICT"],
  ["parameters are chosen", { use_peft: true, lora_target_modules: "x1" }, "E_ADAPTER_MODULE"],
  ["the schedule is made", schedule, "E_CONFIG_INVALID"],
  ["a sample is encoded", { sample_prompt: "word ".repeat(9000) }, "E_CONFIG_INVALID"],
] as const) {
  test(`an error after ${when} closes the model's files and the tokens`, async (t) => {
    const opened = openFiles();
    const { mock } = t.mock.method(TokenStore.prototype, "close");
    assert.match(await caseError(job, "five.jsonl", settings), new RegExp(`^${code}: `));
    assert.equal(mock.callCount(), 1);
    assert.equal(openFiles(), opened);
  });
}

test("a schedule with a rate that is no number, or below 0, is refused with the place of its arguments", async () => {
  for (const [settings, told] of [
    [schedule, /update 1 of \d+ would be NaN, with learning_rate 0.001/],
    [
      {
        ...{ lr_scheduler_type: "cosine_with_min_lr", learning_rate: 0 },
        lr_scheduler_kwargs: { min_lr: 0 },
      },
      /update 1 of \d+ would be NaN, with learning_rate 0\)/,
    ],
    [
      { lr_scheduler_type: "polynomial", lr_scheduler_kwargs: { lr_end: -1 }, max_steps: 9 },
      /update [2-9] of 9 would be -0/,
    ],
  ] as const) {
    const message = await caseError(job, "five.jsonl", settings);
    assert.match(message, /^E_CONFIG_INVALID: .*lr_scheduler_kwargs must be .*changed.yaml:\d+\)/);
    assert.match(message, told);
  }
});

test("a prepared run keeps them open until it is closed", async (t) => {
  const opened = openFiles();
  const { mock } = t.mock.method(TokenStore.prototype, "close");
  const run = await prepareCase(job, "five.jsonl");
  assert.equal(openFiles(), opened + 1);
  assert.equal(mock.callCount(), 0);
  await run.close();
  await run.close();
  assert.equal(mock.callCount(), 1);
  assert.equal(openFiles(), opened);
});

test("what fails to close keeps nothing else open", async () => {
  const resources = new OpenResources();
  const closed: string[] = [];
  resources.add(() => void closed.push("first"));
  resources.add(() => {
    throw new Error("second");
  });
  resources.add(() => void closed.push("third"));
  await assert.rejects(resources.close(), /second/);
  assert.deepEqual(closed, ["third", "first"]);
});
