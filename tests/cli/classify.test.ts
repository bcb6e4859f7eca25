import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { classifyCommand } from "#cli/classify";
import { openSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { assertClose } from "#tests/support/compare";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { copyFixtureWithTokenizer } from "#tests/support/number-tokenizer";
import { type ProgramResult, runProgram } from "#tests/support/run-program";

const classify = (...args: string[]): Promise<ProgramResult> =>
  runProgram(process.execPath, [join(packageRoot, "bin/lockstep"), "classify", ...args]);

interface Line {
  readonly place?: string;
  readonly text: string;
  readonly text_pair?: string;
  readonly truncated_tokens?: number;
  readonly scores: readonly { readonly label: string; readonly score: number }[];
}

const linesOf = ({ code, stdout, stderr }: ProgramResult): Line[] => {
  assert.equal(code, 0, stderr);
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);
};

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-classify-"));
});
after(() => rm(directory, { recursive: true, force: true }));

/** A fixture's rows as texts of numbers, and the logits that transformers has for each. */
async function caseOf(name: string) {
  const place = modelFixtureDirectory(name);
  const json = JSON.parse(await readFile(join(place, "case.json"), "utf8")) as {
    input_ids: number[][];
    attention_mask: number[][];
  };
  const texts = json.input_ids.map((ids, row) =>
    ids.filter((_, i) => json.attention_mask[row]?.[i] === 1).join(" "),
  );
  const file = await openSafetensors(join(place, "expected.safetensors"));
  const flat = await file.readFloat32("logits");
  await file.close();
  const width = flat.length / texts.length;
  const logits = texts.map((_, row) => [...flat.subarray(row * width, (row + 1) * width)]);
  return { texts, logits };
}

const softmax = (values: number[]): number[] => {
  const exponentials = values.map((value) => Math.exp(value));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
};
const sigmoid = (values: number[]): number[] => values.map((value) => 1 / (1 + Math.exp(-value)));
const same = (values: number[]): number[] => values;

const cases: readonly [name: string, toScores: (logits: number[]) => number[]][] = [
  ["bert-seqcls", softmax],
  ["roberta-seqcls", softmax],
  ["qwen2-seqcls", softmax],
  ["distilbert-seqcls-multilabel", sigmoid],
  ["bert-regression", same],
];
for (const [name, toScores] of cases) {
  test(`${name}: scores are those of transformers, by name, the largest first but for numbers`, async () => {
    const model = join(directory, name);
    await copyFixtureWithTokenizer(name, model);
    const { texts, logits } = await caseOf(name);
    const rows = texts.flatMap((text) => ["--text", text]);
    const lines = linesOf(await classify(model, ...rows, "--json"));
    assert.deepEqual(
      lines.map(({ text }) => text),
      texts,
    );
    lines.forEach(({ scores }, row) => {
      const expected = toScores(logits[row] ?? []);
      const byNumber = expected.map(
        (_, i) => scores.find(({ label }) => label === `LABEL_${i}`)?.score ?? Number.NaN,
      );
      assert.equal(scores.length, expected.length);
      assertClose(Float32Array.from(byNumber), Float32Array.from(expected), 1e-5, `row ${row}`);
      const sorted = [...scores].sort((a, b) =>
        toScores === same ? (a.label < b.label ? -1 : 1) : b.score - a.score,
      );
      assert.deepEqual(scores, sorted);
    });
  });
}

test("files of texts give what the texts give, in their order, and are looked at before", async () => {
  const model = join(directory, "bert-file");
  await copyFixtureWithTokenizer("bert-seqcls", model);
  const { texts } = await caseOf("bert-seqcls");
  // Lengths that differ, so that the order of computing is not that of the rows.
  const rows = [...texts, "7 8", "9", ...texts.map((text) => text.slice(0, 20).trim()), "1 2 3"];
  const expected = linesOf(
    await classify(model, ...rows.flatMap((text) => ["--text", text]), "--json"),
  ).map(({ scores }) => scores);
  const file = async (name: string, text: string): Promise<string> => {
    await writeFile(join(directory, name), text);
    return join(directory, name);
  };
  const jsonl = await file("a.jsonl", rows.map((text) => JSON.stringify({ text })).join("\n"));
  const csv = await file("a.csv", `id,review\n${rows.map((text, i) => `${i},${text}`).join("\n")}`);
  const txt = await file("a.txt", `${rows.join("\n\n")}\n`);
  for (const args of [[jsonl], [csv, "--text-column", "review"], [txt]]) {
    const lines = linesOf(await classify(model, "--json", "--file", ...args));
    lines.forEach(({ scores }, i) => {
      assert.deepEqual(
        scores.map(({ label }) => label),
        expected[i]?.map(({ label }) => label),
      );
      const of = (list: typeof scores | undefined) =>
        Float32Array.from(list?.map(({ score }) => score) ?? []);
      assertClose(of(scores), of(expected[i]), 1e-6, `row ${i}`);
    });
    assert.equal(lines.length, rows.length);
  }
  const lines = linesOf(await classify(model, "--json", "--file", txt, "--top", "1"));
  assert.deepEqual(
    lines.map(({ place, scores }) => [place, scores.length]),
    rows.map((_, i) => [`${txt}:${2 * i + 1}`, 1]),
  );
  const shown = await classify(model, "--text", "7 8", "--top", "2");
  assert.match(shown.stdout, /^> 7 8\n {2}LABEL_\d {2}0\.\d{4}\n {2}LABEL_\d {2}0\.\d{4}\n\n$/);

  const missing = await classify(model, "--file", csv);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /E_TEXT_UNUSABLE: .*a\.csv:2 .*column "text".*id, review/);
  assert.equal(missing.stdout, "");
  const blank = await file("b.jsonl", '{"text":"1 2"}\n{"text":"  "}\n');
  assert.match((await classify(model, "--file", blank)).stderr, /b\.jsonl:2 .*no tokens/);
});

test("pairs are told apart, long texts are cut and said so, other models are refused", async () => {
  const model = join(directory, "bert-pairs");
  await copyFixtureWithTokenizer("bert-seqcls", model);
  // A second text gets the second type where the post-processor says nothing: 3 4 | 5 is not 3 4 5.
  const [pair] = linesOf(await classify(model, "--text", "3 4", "--text-pair", "5", "--json"));
  const [one] = linesOf(await classify(model, "--text", "3 4 5", "--json"));
  assert.equal(pair?.text_pair, "5");
  assert.notDeepEqual(pair?.scores, one?.scores);
  const rows = join(directory, "pairs.jsonl");
  await writeFile(rows, '{"sentence1":"3 4","sentence2":"5"}\n{"sentence1":"3 4","sentence2":"5"}');
  const both = linesOf(await classify(model, "--file", rows, "--json"));
  for (const { scores } of both) {
    assert.equal(scores[0]?.label, pair?.scores[0]?.label);
    assert.ok(Math.abs((scores[0]?.score ?? 0) - (pair?.scores[0]?.score ?? 1)) < 1e-6);
  }

  const config = JSON.parse(await readFile(join(model, "config.json"), "utf8")) as {
    max_position_embeddings: number;
  };
  const longest = config.max_position_embeddings;
  const numbers = Array.from({ length: longest + 3 }, (_, i) => i % 9).join(" ");
  const long = await classify(model, "--text", numbers, "--json");
  assert.equal(linesOf(long)[0]?.truncated_tokens, 3);
  assert.match(long.stderr, new RegExp(`--text 1: 3 tokens are cut off, .* ${longest} positions`));

  const causal = join(directory, "causal");
  await copyFixtureWithTokenizer("llama-gqa-untied", causal);
  const refused = await classify(causal, "--text", "1");
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /E_USAGE: .*causal-lm model \(llama\) has no classes/);
});

test("a command line that cannot be read is E_USAGE, which exits 2", async () => {
  const model = modelFixtureDirectory("bert-seqcls");
  for (const args of [
    [],
    [model],
    [model, "--text", "a", "--file", "b.txt"],
    [model, "--text", "a", "--top", "0"],
    [model, "--text", "a", "--text", "b", "--text-pair", "c"],
    [model, "--text", "a", "--text-column", "b"],
    [model, "--text", "a", "--wat"],
  ]) {
    await assert.rejects(classifyCommand(args), { code: "E_USAGE" }, args.join(" "));
  }
});
