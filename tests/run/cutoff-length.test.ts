import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { prepareCase } from "#tests/support/case-run";

let job: CaseJob;
before(async () => {
  job = await createCaseJob(undefined);
  const rows = (file: string, row: (i: number) => object): Promise<void> => {
    const lines = Array.from({ length: 20 }, (_, i) => `${JSON.stringify(row(i))}\n`);
    return writeFile(job.file(file), lines.join(""));
  };
  await rows("answers.jsonl", (i) => ({
    ...{ instruction: `${i}?`, output: i < 3 ? "very ".repeat(30) : "no" },
  }));
  await rows("pairs.jsonl", (i) => ({
    ...{ prompt: `${i}?`, chosen: i < 3 ? "very ".repeat(30) : "no", rejected: "yes" },
  }));
  await writeFile(job.file("texts.txt"), "A text that is laid out end to end. ".repeat(40));
});
after(() => job.remove());

const linesOf = async (data: string, settings: Readonly<Record<string, unknown>>) => {
  const run = await prepareCase(job, data, {
    ...{ max_steps: 2, per_device_train_batch_size: 2, ...settings },
  });
  await run.close();
  return run.data.dataLines.join("\n");
};

test("rows of a LLaMA-Factory file that are cut elsewhere than there are told", async () => {
  const factory = { stage: "sft", finetuning_type: "full" };
  const told = /3 examples longer than cutoff_len: the end is cut off here, where LLaMA-Factory/;
  assert.match(await linesOf("answers.jsonl", { ...factory, cutoff_len: 64 }), told);
  assert.match(await linesOf("pairs.jsonl", { ...factory, stage: "dpo", cutoff_len: 64 }), told);
  // Of what is not cut, is cut alike, or was not written for that tool there is nothing to tell.
  for (const [data, settings] of [
    ["answers.jsonl", { ...factory, cutoff_len: 512 }],
    ["texts.txt", { ...factory, stage: "pt", cutoff_len: 64 }],
    ["answers.jsonl", { max_length: 64 }],
  ] as const) {
    assert.doesNotMatch(await linesOf(data, settings), /LLaMA-Factory/);
  }
});
