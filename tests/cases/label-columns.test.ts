import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { caseError, prepareCase } from "#tests/support/case-run";

let job: CaseJob;
before(async () => {
  job = await createCaseJob("20-label-columns");
});
after(() => job.remove());

async function labelsOf(
  data: string,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<{ labels: readonly string[] | undefined; lines: string; first: number[] }> {
  const run = await prepareCase(job, data, settings);
  const { rowsIn, numRows } = run.plan;
  assert.ok(numRows > 0 && rowsIn(0) > 0);
  const batches = run.plan.microBatches(0, 0);
  const first = [...(batches[0]?.fields["label"] ?? batches[0]?.fields["targets"] ?? [])].filter(
    (target) => target >= 0,
  );
  await run.close();
  return { labels: run.data.labels, lines: (run.started.dataLines ?? []).join("\n"), first };
}

test("numbers of any range, with blanks and as true and false are classes, in JSON and in tables", async () => {
  const cases: Readonly<Record<string, readonly string[]>> = {
    "stars.jsonl": ["1", "2", "3", "4", "5"],
    "moods.jsonl": ["-1", "0", "1"],
    "moods.csv": ["-1", "0", "1"],
    "floats.csv": ["LABEL_0", "LABEL_1"],
    "blanks.csv": ["LABEL_0", "LABEL_1"],
    "bools.jsonl": ["false", "true"],
    "reviews.jsonl": ["LABEL_0", "LABEL_1"],
  };
  for (const [data, expected] of Object.entries(cases)) {
    const { labels, lines } = await labelsOf(data);
    assert.deepEqual(labels, expected, data);
    assert.ok(lines.includes(`in ${expected.length} classes (${expected.join(", ")})`), lines);
  }
});

test("an empty label is a bad row with its place", async () => {
  const error = await caseError(job, "gaps.csv");
  assert.match(error, /^E_DATA_NO_ANSWER: .*gaps\.csv:6: the row has no label/);
  const { labels, lines } = await labelsOf("gaps.csv", { on_bad_row: "skip" });
  assert.deepEqual(labels, ["LABEL_0", "LABEL_1"]);
  assert.match(lines, /1 bad row left out:\n.*gaps\.csv:6/);
});

test("a model of texts becomes a classifier with a word, and not where its text is asked for", async () => {
  const turned = await labelsOf("reviews.jsonl");
  assert.match(turned.lines, /becomes a classifier, since rows have a label; dataset_format: text/);
  for (const settings of [{ dataset_text_field: "text" }, { dataset_format: "text" }]) {
    const texts = await labelsOf("reviews.jsonl", settings);
    assert.equal(texts.labels, undefined);
    // "Some review number 0" in bytes, each token but the first is learnt.
    assert.deepEqual(
      texts.first.slice(0, 4),
      [...Buffer.from("ome ")].map((byte) => byteToken(byte)),
    );
  }
  const named = await labelsOf("reviews.jsonl", { dataset_text_field: "text" });
  assert.match(named.lines, /labels are not read: dataset_text_field trains on texts/);
});

/** The token of a printable byte: 4 special ones, then GPT-2's order of letters is that of bytes. */
const byteToken = (byte: number): number => 4 + byte;
