import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { describeData } from "#run/describe-data";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer, prepareDataset } from "#lib/data/index";

test("before training a person reads what there is to learn, what was cut and what was left out", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-data-lines-"));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, "chat.jsonl");
  const row = (answer: string): string =>
    JSON.stringify({
      messages: [
        { role: "user", content: "hello" },
        { role: "assistant", content: answer },
      ],
    });
  const answers = ["short", "x".repeat(100), "another"];
  await writeFile(file, [...answers.map(row), "{", row("")].join("\n"));
  const tokenizer = await loadTokenizer(join(packageRoot, "tests/fixtures/tok"));
  const dataset = await prepareDataset(
    { train: [{ source: file }], validationFraction: 0.3, onBadExample: "skip" },
    { tokenizer, sequenceLength: 40, vocabSize: 277, maxSequenceLength: 64, seed: 3 },
  );
  t.after(() => dataset.close());
  const { train, validation } = dataset;
  assert.ok(validation !== undefined);
  const figures = ({ report }: typeof train): string =>
    `${report.numRows === 1 ? "1 row" : `${report.numRows} rows`}, ${report.rowTokens} tokens, ` +
    `${report.supervisedTokens} supervised` +
    (report.truncatedExamples === 0
      ? ""
      : `; ${report.truncatedExamples} too long, ${report.truncatedTokens} tokens cut off`);
  assert.equal(train.report.truncatedExamples + validation.report.truncatedExamples, 1);
  assert.deepEqual(describeData(dataset), [
    `training: 2 examples a row each, ${figures(train)}`,
    `validation: 1 example a row each, ${figures(validation)}`,
    "2 bad rows left out:",
    `  E_DATA_INVALID_JSON: ${file}:4:2: found the end of the line where a key in double quotes was expected.`,
    `  E_DATA_NO_ANSWER: ${file}:5: the row has no answer to learn from.`,
  ]);
});
