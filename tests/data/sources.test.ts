import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { readFileSync } from "node:fs";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { BadExamples } from "#lib/data/bad-examples";
import { type DataSource, readExamples, sourceFiles } from "#lib/data/examples";
import { divideBySplits, parseSplit } from "#lib/data/sources/splits";

const root = await mkdtemp(join(tmpdir(), "lockstep-sources-"));
after(() => rm(root, { recursive: true }));

let numDirectories = 0;
/** A directory of files: by name their content, a row of text that holds the name by default. */
async function directory(files: Readonly<Record<string, string | undefined>>): Promise<string> {
  const base = join(root, String(numDirectories++));
  await mkdir(base);
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(base, name)), { recursive: true });
    await writeFile(join(base, name), content ?? `${JSON.stringify({ text: name })}\n`);
  }
  return base;
}
const named = (...names: string[]): Record<string, undefined> =>
  Object.fromEntries(names.map((name) => [name, undefined]));

interface Found {
  readonly files: readonly string[];
  readonly notes: readonly string[];
}
async function find(
  source: string,
  purpose: "train" | "validation" = "train",
  part: Partial<DataSource> = {},
): Promise<Found> {
  const { files, notes } = await sourceFiles({ source, ...part }, purpose);
  return { files: files.map((file) => file.slice(source.length + 1)), notes };
}

async function problem(action: Promise<unknown>, code = "E_DATASET_DIRECTORY"): Promise<string> {
  const error = await action.then(
    () => assert.fail("it is accepted"),
    (reason: unknown) => reason,
  );
  assert.ok(isLockstepError(error), String(error));
  assert.equal(error.code, code, error.message);
  return error.message;
}

test("splits are those that datasets finds, over generated directories", () => {
  const cases = JSON.parse(
    readFileSync(join(packageRoot, "tests/fixtures/splits.json"), "utf8"),
  ) as { files: string[]; splits: Record<string, string[]> }[];
  assert.ok(cases.length >= 200);
  let numUnclear = 0;
  for (const { files, splits } of cases) {
    const ours = divideBySplits(files);
    const all = Object.values(splits).flat();
    if (new Set(all).size < all.length) {
      // datasets puts the file into both splits; here it is refused.
      assert.ok(ours.unclear !== undefined, files.join());
      numUnclear++;
      continue;
    }
    assert.equal(ours.unclear, undefined, files.join());
    assert.deepEqual(Object.fromEntries(ours.splits), splits, files.join());
    assert.deepEqual([...ours.others, ...all].sort(), files);
  }
  assert.ok(numUnclear < cases.length / 2);
});

test("a directory trains on its train split, and what it does not read is told", async () => {
  const base = await directory({
    ...named("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"),
    ...named("data/test-00000-of-00001.jsonl", "data/validation-00000-of-00001.jsonl"),
    "README.md": "A data set.",
  });
  const train = ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"];
  const { files, notes } = await find(base);
  assert.deepEqual(files, train);
  assert.deepEqual(notes, [
    `${base} trains on its split train (2 files), and not on test (1 file), validation (1 file); eval_dataset: ${base} validates on validation`,
  ]);
  const validation = await find(base, "validation");
  assert.deepEqual(validation.files, ["data/validation-00000-of-00001.jsonl"]);
  assert.match(validation.notes.join(), /validates on its split validation \(1 file\)/);
  assert.deepEqual((await find(base, "validation", { split: "test" })).files, [
    "data/test-00000-of-00001.jsonl",
  ]);
  const texts: string[] = [];
  for await (const { example } of readExamples({ source: base }, new BadExamples("error"))) {
    assert.ok(example.kind === "text");
    texts.push(example.text);
  }
  assert.deepEqual(texts, train);
});

test("names in capital letters are splits too, and eval_dataset takes test where there is no other", async () => {
  const base = await directory(named("Train.jsonl", "TEST.jsonl"));
  assert.deepEqual((await find(base)).files, ["Train.jsonl"]);
  assert.deepEqual((await find(base, "validation")).files, ["TEST.jsonl"]);
});

test("a directory whose names tell no split is read whole, with what lies below it", async () => {
  const base = await directory(named("b.jsonl", "a/latest.jsonl", ".hidden.jsonl", "__x/c.jsonl"));
  const { files, notes } = await find(base);
  assert.deepEqual(files, ["a/latest.jsonl", "b.jsonl"]);
  assert.match(notes.join(), /all its 2 files are read, those in directories below it too/);
  assert.deepEqual((await find(await directory(named("a.jsonl", "b.jsonl")))).notes, []);
  assert.deepEqual((await find(base, "validation")).files, files);
});

test("a snapshot of links is read, and a link that leads nowhere is named", async () => {
  const blobs = await directory({ blob: '{"text": "linked"}\n' });
  const base = await directory({ "README.md": "" });
  await symlink(join(blobs, "blob"), join(base, "train.jsonl"));
  await symlink(join(blobs, "gone"), join(base, "train-2.jsonl"));
  assert.deepEqual((await find(base)).files, ["train-2.jsonl", "train.jsonl"]);
  const read = async (): Promise<void> => {
    for await (const _ of readExamples({ source: base }, new BadExamples("error"))) continue;
  };
  assert.match(await problem(read(), "E_FILE_NOT_FOUND"), /train-2\.jsonl/);
});

test("a README.md names the files of splits and subsets", async () => {
  const files = named("raw/a.jsonl", "raw/b.jsonl", "fr/train.jsonl", "fr/test.jsonl");
  const card = (configs: string): string => `---\nlicense: mit\nconfigs:\n${configs}---\n# Title\n`;
  const one = card(
    "- config_name: en\n  data_files:\n  - split: train\n    path: raw/a*\n  - split: test\n    path: [raw/b.jsonl]\n",
  );
  const single = await directory({ ...files, "README.md": one });
  assert.deepEqual((await find(single)).files, ["raw/a.jsonl"]);
  assert.deepEqual((await find(single, "validation")).files, ["raw/b.jsonl"]);
  const two = card(
    "- config_name: en\n  data_files: raw/*.jsonl\n- config_name: fr\n  data_dir: fr\n",
  );
  const several = await directory({ ...files, "README.md": two });
  assert.match(await problem(find(several)), /it has the subsets en, fr: .*name: en/);
  assert.deepEqual((await find(several, "train", { subset: "en" })).files, [
    "raw/a.jsonl",
    "raw/b.jsonl",
  ]);
  assert.deepEqual((await find(several, "train", { subset: "fr" })).files, ["fr/train.jsonl"]);
  assert.match(await problem(find(several, "train", { subset: "de" })), /no subset de: it has en/);
  const preferred = card(
    "- config_name: en\n  data_dir: raw\n- config_name: fr\n  data_dir: fr\n  default: true\n",
  );
  const chosen = await directory({ ...files, "README.md": preferred });
  assert.deepEqual((await find(chosen)).files, ["fr/train.jsonl"]);
  const gone = card("- config_name: en\n  data_files: nowhere/*\n");
  const wrong = await directory({ ...files, "README.md": gone });
  assert.match(await problem(find(wrong)), /names nowhere\/\* for train, which is not there/);
});

test("forms of configs give the splits that datasets gives", async () => {
  const [a, b, train, testing] = ["raw/a.jsonl", "raw/b.jsonl", "fr/train.jsonl", "fr/test.jsonl"];
  // What load_dataset of datasets 5.2 read of these files.
  const cases: [configs: string, train: string[], test: string[]][] = [
    ["- config_name: fr\n  data_dir: fr\n", [train], [testing]],
    ["- config_name: default\n  data_files: raw/*.jsonl\n", [a, b], []],
    ["- config_name: default\n  data_files: [raw/a.jsonl, fr/test.jsonl]\n", [a, testing], []],
    ["- data_files:\n  - split: train\n    path: '**/[ab].jsonl'\n", [a, b], []],
    ["- data_files:\n  - split: train\n    path: 'fr/**'\n", [testing, train], []],
    [
      "- config_name: en\n  data_dir: raw\n- config_name: default\n  data_dir: fr\n",
      [train],
      [testing],
    ],
  ];
  for (const [configs, trained, tested] of cases) {
    const card = { "README.md": `---\nconfigs:\n${configs}---\n` };
    const base = await directory({ ...named(a, b, train, testing), ...card });
    assert.deepEqual((await find(base)).files, trained, configs);
    if (tested.length === 0) await problem(find(base, "validation"));
    else assert.deepEqual((await find(base, "validation")).files, tested, configs);
  }
  // Patterns stand from the data set's directory on, also beside data_dir.
  const both = "- config_name: fr\n  data_dir: fr\n  data_files: t*.jsonl\n";
  const base = await directory({ ...named(train), "README.md": `---\nconfigs:\n${both}---\n` });
  assert.match(await problem(find(base)), /names t\*\.jsonl for train, which is not there/);
});

test("what cannot be read as it was meant is refused with what there is", async () => {
  const onlyTest = await directory(named("test_questions.jsonl", "reviews.jsonl"));
  assert.match(
    await problem(find(onlyTest)),
    /no split train: it has test \(test_questions\.jsonl\); in no split: reviews\.jsonl/,
  );
  const onlyTrain = await directory(named("train.jsonl"));
  assert.match(await problem(find(onlyTrain, "validation")), /no split validation or test/);
  const several = await directory(named("train_sft-1.jsonl", "x.jsonl"));
  assert.deepEqual((await find(several)).files, ["train_sft-1.jsonl"]);
  assert.match((await find(several)).notes.join(), /not on what is in no split \(x\.jsonl\)/);
  const shards = await directory(
    named("data/train_sft-00000-of-00001.jsonl", "data/test_sft-00000-of-00001.jsonl"),
  );
  assert.match(await problem(find(shards)), /no split train: it has test_sft .*, train_sft/);
  assert.equal((await find(shards, "train", { split: "train_sft" })).files.length, 1);
  const both = await directory(named("train_test.jsonl"));
  assert.match(await problem(find(both)), /named after several splits, train and test/);
  const twice = await directory(named("rows.jsonl", "rows.csv"));
  assert.match(await problem(find(twice)), /rows\.csv and rows\.jsonl look like the same rows/);
  const saved = await directory(
    named("data-00000-of-00001.arrow", "state.json", "dataset_info.json"),
  );
  assert.match(await problem(find(saved)), /save_to_disk wrote it.*load_from_disk/);
  const dict = await directory(named("dataset_dict.json", "train/data-00000-of-00001.arrow"));
  assert.match(await problem(find(dict)), /save_to_disk wrote it/);
  const cache = await directory(named("refs/main", "snapshots/0a1b/data/train.jsonl"));
  assert.match(await problem(find(cache)), /hub's cache: name its snapshot, .*snapshots\/0a1b/);
  const none = await directory({ "README.md": "", "a.xlsx": "" });
  assert.match(await problem(find(none)), /none of its files is data that is read: README\.md, a/);
  const other = await directory({ ...named("a.jsonl"), "b.jsonl.zst": "" });
  assert.match((await find(other)).notes.join(), /not read: b\.jsonl\.zst/);
  const file = join(onlyTrain, "train.jsonl");
  assert.match(
    await problem(find(file, "train", { split: "test" })),
    /it is a file, and the split test/,
  );
  assert.match(await problem(find(file, "train", { subset: "en" })), /the subset en/);
});

test("a split is a name, or its first rows", () => {
  assert.deepEqual(parseSplit("train"), { name: "train" });
  assert.deepEqual(parseSplit("test[:20]"), { name: "test", maxExamples: 20 });
  for (const text of ["train[:10%]", "train[5:]", "train+test", "train[:0]", "", "a b"]) {
    assert.equal(parseSplit(text), undefined, text);
  }
});

test("a pipe in a directory, or matched by a pattern, is refused by name", async () => {
  const base = await directory(named("a.jsonl"));
  execFileSync("mkfifo", [join(base, "b.jsonl")]);
  for (const source of [base, join(base, "*.jsonl")]) {
    const read = async (): Promise<void> => {
      for await (const _ of readExamples({ source }, new BadExamples("error"))) continue;
    };
    assert.match(
      await problem(read(), "E_FILE_UNREADABLE"),
      /b\.jsonl cannot be read: it is a pipe/,
    );
  }
  assert.match(await problem(find("/dev/zero"), "E_FILE_UNREADABLE"), /it is a device/);
});
