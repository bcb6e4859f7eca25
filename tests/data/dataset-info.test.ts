import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { BadExamples } from "#lib/data/bad-examples";
import { DatasetInfo, findSources } from "#lib/data/dataset-info";
import { type DataSource, readExamples } from "#lib/data/examples";
import type { Example } from "#lib/data/formats/index";

const directory = join(packageRoot, "tests/fixtures/configs/data");

async function open(directoryOfInfo: string): Promise<DatasetInfo> {
  const info = await DatasetInfo.open(directoryOfInfo);
  assert.ok(info !== undefined);
  return info;
}

async function examples(source: DataSource): Promise<Example[]> {
  const found: Example[] = [];
  for await (const { example } of readExamples(source, new BadExamples("error")))
    found.push(example);
  return found;
}

const turns = (example: Example | undefined): string[] => {
  assert.ok(example?.kind === "conversation");
  return example.messages.map(({ role, content }) => `${role}: ${String(content)}`);
};

test("an entry with a file alone is Alpaca in its own columns", async () => {
  const greetings = (await open(directory)).get("greetings");
  assert.equal(greetings.format, "alpaca");
  assert.equal(greetings.maxExamples, undefined);
  const [first, second] = await examples(greetings);
  assert.deepEqual(turns(first), ["user: Say hello.\nin French", "assistant: Bonjour."]);
  assert.deepEqual(turns(second), ["user: Say goodbye.", "assistant: Goodbye."]);
});

test("columns and tags name the parts of a ShareGPT row", async () => {
  const sums = (await open(directory)).get("sums");
  assert.equal(sums.format, "sharegpt");
  assert.equal(sums.maxExamples, 3);
  const [first, second] = await examples(sums);
  assert.deepEqual(turns(first), ["system: Answer with a number.", "user: 1 + 1?", "assistant: 2"]);
  assert.ok(second?.kind === "conversation");
  assert.deepEqual(second.isLearnt, [false, true, false, true]);
});

test("where columns are given, a column that is not named is not read", async () => {
  const rows = await examples((await open(directory)).get("translations"));
  assert.deepEqual(rows.map(turns), [
    ["user: cat", "assistant: gato"],
    ["user: dog, big", 'assistant: perro "grande"'],
  ]);
});

test("an entry that names a prompt alone is text, as for pre-training", async () => {
  const rows = await examples((await open(directory)).get("sentences"));
  assert.deepEqual(rows, [
    { kind: "text", text: "cat" },
    { kind: "text", text: "dog, big" },
  ]);
});

test("a directory without an index has none", async () => {
  assert.equal(await DatasetInfo.open(join(directory, "none")), undefined);
});

test("an entry that cannot be used is named with the reason", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "lockstep-dataset-info-"));
  t.after(() => rm(dir, { recursive: true }));
  const file = join(dir, "dataset_info.json");
  const problem = async (name: string, entry: unknown): Promise<string> => {
    await writeFile(file, JSON.stringify({ [name]: entry }));
    const info = await open(dir);
    try {
      info.get("rows");
    } catch (error) {
      assert.ok(error instanceof Error);
      return error.message.replace(`${file}: `, "");
    }
    assert.fail(`${JSON.stringify(entry)} is accepted`);
  };
  const cases: [unknown, RegExp][] = [
    [{ hf_hub_url: "a/b" }, /^"rows": its hf_hub_url is "a\/b", and Lockstep downloads nothing/],
    [{ script_url: "x" }, /^"rows": its script_url is "x"/],
    [{}, /^"rows": it has no file_name/],
    [{ file_name: 3 }, /^"rows": file_name is not text/],
    [
      { file_name: "x.json", formating: "alpaca" },
      /unknown key formating \(did you mean formatting\?\)\.$/,
    ],
    [{ file_name: "x.json", formatting: "chatml" }, /formatting is "chatml", not one of alpaca/],
    [{ file_name: "x.json", ranking: true }, /names no chosen and rejected/],
    [{ file_name: "x.json", columns: { prompt: "a", chosen: "b" } }, /ranking is not true/],
    [{ file_name: "x.json", split: "test" }, /split is "test"/],
    [{ file_name: "x.json", num_samples: 0.5 }, /num_samples is 0.5/],
    [{ file_name: "x.json", columns: { promt: "a" } }, /unknown key promt in columns .*prompt/],
    [{ file_name: "x.json", columns: { images: "a" } }, /trains on text/],
    [{ file_name: "x.json", columns: { chosen: "a" } }, /ranking is not true/],
    [{ file_name: "x.json", columns: { response: "a" } }, /columns names no prompt/],
    [{ file_name: "x.json", columns: [] }, /columns is not an object/],
    [
      { file_name: "x.json", formatting: "sharegpt", tags: { role: "a" } },
      /unknown key role in tags \(did you mean role_tag/,
    ],
    ["x.json", /^"rows": it is not an object/],
  ];
  for (const [entry, expected] of cases) assert.match(await problem("rows", entry), expected);
  assert.match(await problem("row", {}), /^it has no data set "rows" \(did you mean row\?\)/);
  assert.match(await problem("__proto__", {}), /^it has no data set "rows"/);
  for (const text of ["{", "[]", "3"]) {
    await writeFile(file, text);
    await assert.rejects(DatasetInfo.open(dir), { code: "E_DATASET_INFO" });
  }
});

test("a name is a built-in data set, an entry of the index or a path, in this order", async () => {
  const found = await findSources(["sotu", "greetings", "sums", join(directory, "sums.jsonl")], {
    datasetDir: directory,
    textField: "body",
    maxExamples: 2,
  });
  assert.deepEqual(
    found.map(({ source, format, maxExamples }) => [basename(source), format, maxExamples]),
    [
      ["sotu", undefined, 2],
      ["greetings.json", "alpaca", 2],
      ["sums.jsonl", "sharegpt", 2],
      ["sums.jsonl", undefined, 2],
    ],
  );
  assert.deepEqual(found[3]?.columns, { text: "body" });
  await assert.rejects(findSources(["greeting"], { datasetDir: directory }), {
    code: "E_DATASET_INFO",
    message: /no data set "greeting" \(did you mean greetings\?\)/,
  });
  // Without an index a word may be anything; who reads it says what it is not.
  const [word] = await findSources(["greeting"], { datasetDir: join(directory, "none") });
  assert.deepEqual(word, { source: "greeting" });
  const all = await findSources(["greetings"], { datasetDir: directory });
  assert.equal((await examples(all[0] as DataSource)).length, 2);
  const one = await findSources(["greetings"], { datasetDir: directory, maxExamples: 1 });
  assert.equal((await examples(one[0] as DataSource)).length, 1);
});
