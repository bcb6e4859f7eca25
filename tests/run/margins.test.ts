import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { marginField } from "#lib/core/batch";
import { gatherBatch } from "#lib/data/rows";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { caseError, prepareCase } from "#tests/support/case-run";

// Margins of pairs are of a reward model alone, and never read in silence.

let job: CaseJob;
const write = (name: string, margin: (row: number) => unknown): Promise<void> =>
  writeFile(
    job.file(name),
    Array.from({ length: 20 }, (_, i) => {
      const pair = { prompt: `${i}?`, chosen: ` It is ${i}.`, rejected: " No." };
      return `${JSON.stringify({ ...pair, margin: margin(i) })}\n`;
    }).join(""),
  );

before(async () => {
  job = await createCaseJob(undefined);
  await write("all.jsonl", () => 3);
  await write("some.jsonl", (i) => (i % 2 === 0 ? 3 : null));
  await write("words.jsonl", () => "large");
  const columns = { prompt: "prompt", chosen: "chosen", rejected: "rejected" };
  const info = (margin: object): object => ({
    ...{ file_name: "all.jsonl", ranking: true, columns: { ...columns, ...margin } },
  });
  await writeFile(
    job.file("dataset_info.json"),
    JSON.stringify({
      unnamed: info({}),
      named: info({ margin: "margin" }),
      unranked: { file_name: "all.jsonl", columns: { prompt: "prompt", margin: "margin" } },
    }),
  );
});
after(() => job.remove());

/** Margins that a run's rows have, in order and each once, and what it says of margins. */
async function marginsOf(settings: Readonly<Record<string, unknown>>) {
  const run = await prepareCase(job, "all.jsonl", {
    ...{ max_length: 32, max_steps: 2, per_device_train_batch_size: 2 },
    ...settings,
  });
  const { rows } = run.data.dataset.train;
  const all = Array.from({ length: rows.numRows }, (_, row) => row);
  const values = gatherBatch(rows, all, rows.numRows).fields[marginField.name] ?? [];
  const lines = run.data.dataLines.filter((line) => line.includes("margin"));
  await run.close();
  return { values: [...new Set(values)].sort((a, b) => a - b), said: lines.join("\n") };
}

test("a run that knows no margins reads none, whatever stands in their column", async () => {
  for (const objective of ["dpo", "orpo", "auto"]) {
    for (const file of ["words.jsonl", "all.jsonl"]) {
      const { values, said } = await marginsOf({ objective, dataset: job.file(file) });
      assert.deepEqual(values, []);
      assert.match(said, /columns that are not read: margin/);
    }
  }
  assert.match(
    await caseError(job, "all.jsonl", { objective: "dpo", columns: { margin: "margin" } }),
    /E_DATA_COLUMNS.*columns names margin, which only objective: reward reads/,
  );
});

test("a reward model reads them where a column is theirs, and says so", async () => {
  const objective = "reward";
  const all = await marginsOf({ objective });
  assert.deepEqual(all.values, [3]);
  assert.match(all.said, /all pairs say a margin/);
  const some = await marginsOf({ objective, dataset: job.file("some.jsonl") });
  assert.deepEqual(some.values, [0, 3]);
  assert.match(some.said, /10 pairs of 20 say a margin.*that of the others is 0/);
  assert.match(
    await caseError(job, "words.jsonl", { objective }),
    /E_DATA_ROW_FORMAT.*the margin in "margin" is not a number/,
  );
});

test("an entry of dataset_info.json has margins where it names their column", async () => {
  const unnamed = await marginsOf({ objective: "reward", dataset: "unnamed" });
  assert.deepEqual(unnamed, { values: [0], said: "" });
  const named = await marginsOf({ objective: "reward", dataset: "named" });
  assert.deepEqual(named.values, [3]);
  assert.match(named.said, /all pairs say a margin/);
  const { said } = await marginsOf({ objective: "dpo", dataset: "named" });
  assert.match(said, /columns that are not read: margin/);
  assert.match(
    await caseError(job, "all.jsonl", { dataset: "unranked" }),
    /E_DATASET_INFO.*columns names margin, and ranking is not true/,
  );
});
