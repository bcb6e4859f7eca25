import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { caseError, prepareCase } from "#tests/support/case-run";

let job: CaseJob;
before(async () => {
  job = await createCaseJob("25-json-from-python");
});
after(() => job.remove());

const numRows = async (
  data: string,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<number> => {
  const run = await prepareCase(job, data, settings);
  await run.close();
  return run.plan.numRows;
};

test("a byte order mark, carriage returns, a last comma and messages of other names are read", async () => {
  assert.equal(await numRows("bom-crlf.jsonl"), 2);
  assert.equal(await numRows("comma.json"), 2);
  assert.equal(await numRows("role-content.jsonl"), 2);
});

test("what is no JSON, no UTF-8 or no text is named by file and line, with what to do", async () => {
  assert.match(
    await caseError(job, "nan.jsonl"),
    /^E_DATA_INVALID_JSON: .*nan\.jsonl:1:34: found NaN, which Python writes .*null/,
  );
  assert.match(
    await caseError(job, "latin1.jsonl"),
    /^E_DATA_INVALID_UTF8: .*latin1\.jsonl:1 is not valid UTF-8: .*LATIN1\)\. .*iconv/,
  );
  assert.match(
    await caseError(job, "mixed.jsonl"),
    /^E_DATA_ROW_FORMAT: .*mixed\.jsonl:2: .*"completion" is not text/,
  );
  assert.match(
    await caseError(job, "wrapped.json"),
    /^E_DATA_FORMAT_UNKNOWN: .*wrapped\.json:1: .*stand in its field data/,
  );
});

test("Dolly's columns are read where they are named, and the error says how", async () => {
  assert.match(
    await caseError(job, "dolly.jsonl"),
    /^E_DATA_COLUMNS: .*dolly\.jsonl:1: it has no column output for the answer; the columns are instruction, context, response\. .*columns:/,
  );
  assert.equal(
    await numRows("dolly.jsonl", { columns: { query: "context", response: "response" } }),
    2,
  );
});

test("Python's str of a row, a doubled comma and a cut file are named by line and column", async () => {
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ["repr.jsonl", "{'prompt': 'a'}\n", /:1:2: found "'" .*json\.dumps writes JSON/],
    ["none.jsonl", '{"prompt": None}\n', /:1:12: found None, .*json\.dumps writes null/],
    [
      "double.json",
      '[{"prompt": "a", "completion": "b"},\n,{"prompt": "c", "completion": "d"}]',
      /:2:1: found ","/,
    ],
    [
      "missing.json",
      '[{"prompt": "a", "completion": "b"}\n {"prompt": "c", "completion": "d"}]',
      /:2:2: found "\{" where "," or "\]"/,
    ],
    [
      "cut.json",
      '[{"prompt": "a", "completion": "b"},\n {"prompt": "c"',
      /:2:\d+: found the end of the file/,
    ],
  ];
  for (const [name, text, words] of cases) {
    await writeFile(job.file(name), text);
    const error = await caseError(job, name);
    assert.match(error, /^E_DATA_INVALID_JSON: /, name);
    assert.match(error, words, name);
  }
});
