/** Weights of rows and of messages: where they are read, what batches hold of them, and what is refused. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { exactWeight, maxWeight, sumOfWeights } from "#lib/core/loss-weights";
import {
  DataLedger,
  findSources,
  type PreparedDataset,
  prepareDataset,
  type PrepareOptions,
  previewRow,
  rowsSha256,
} from "#lib/data/index";
import { gatherBatch } from "#lib/data/rows";
import { objectiveOf } from "#lib/objectives/index";
import { withTemplate } from "#tests/support/chat-rows";

const directory = await mkdtemp(join(tmpdir(), "lockstep-weights-"));
after(() => rm(directory, { recursive: true }));
const tokenizer = await withTemplate(
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
);

let numFiles = 0;
async function prepared(
  rows: readonly unknown[],
  options: Partial<PrepareOptions> = {},
  columns: Readonly<Record<string, string>> | null = { weight: "w" },
): Promise<{ dataset: PreparedDataset; ledger: DataLedger; file: string }> {
  const file = join(directory, `${numFiles++}.jsonl`);
  await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const ledger = new DataLedger();
  const dataset = await prepareDataset(
    {
      train: await findSources([file], { datasetDir: directory, columns, isTextModel: true }),
      validationFraction: 0,
    },
    {
      ...{ tokenizer, sequenceLength: 64, vocabSize: 100_000, maxSequenceLength: 512, seed: 1 },
      observer: ledger,
      ...options,
    },
  );
  return { dataset, ledger, file };
}

/** What the batch of all rows holds. */
function batchOf({ train: { rows } }: PreparedDataset) {
  const all = Array.from({ length: rows.numRows }, (_, row) => row);
  // A row of padding behind them.
  return gatherBatch(rows, all, rows.numRows + 1).fields;
}

const distinct = (values: ArrayLike<number> | undefined): number[] =>
  [...new Set(Array.from(values ?? []))].toSorted((a, b) => a - b);

test("rows without weights, or of weights that are all 1, have no field for them", async () => {
  for (const columns of [null, { weight: "w" }]) {
    const { dataset } = await prepared([{ text: "a text", w: 1 }], {}, columns);
    assert.ok(!dataset.isWeighted);
    assert.ok(!("weights" in batchOf(dataset)));
    dataset.close();
  }
});

for (const packing of [null, true, false] as const) {
  test(`texts, packing ${packing}: each target counts as the text that it is of`, async () => {
    const rows = [0.5, 3, 1, 2.25].map((w, i) => ({ text: `${"word ".repeat(9)}${i}`, w }));
    const { dataset } = await prepared(rows, { packing, sequenceLength: 24 });
    const { targets, weights } = batchOf(dataset);
    assert.ok(weights instanceof Float32Array && targets !== undefined);
    const { train } = dataset;
    const { sequenceLength, numRows } = train.rows;
    let sum = 0;
    for (let row = 0; row < numRows; row++) {
      for (const { example, offset, length } of train.rows.piecesOf(row)) {
        for (let i = offset; i < offset + length; i++) {
          const at = row * sequenceLength + i - 1;
          if (i === 0 || (targets[at] ?? -1) < 0) continue;
          assert.equal(weights[at], rows[train.examples[example] ?? 0]?.w, `${row}, ${i}`);
        }
      }
      sum += train.rows.lossWeight(row);
    }
    weights.forEach((weight, at) => {
      if ((targets[at] ?? -1) < 0) assert.ok(Object.is(weight, 0), `${at}`);
    });
    const objective = { kind: "causal_lm", isWeighted: true };
    assert.equal(objectiveOf("causal_lm").weightOf({ targets, weights }, objective), sum);
    assert.equal(
      train.report.supervisedTokens,
      targets.filter((target: number) => target >= 0).length,
    );
    dataset.close();
  });
}

const user = { role: "user", content: "2 + 2?" };
const answer = (content: string, weight?: number) => ({
  ...{ role: "assistant", content },
  ...(weight === undefined ? {} : { weight }),
});

for (const packing of [true, false]) {
  test(`messages, packing ${packing}: tokens count by their message's weight times their row's`, async () => {
    const { dataset, ledger } = await prepared(
      [
        { messages: [user, answer("five", 0.25), user, answer("4")], w: 2 },
        { messages: [user, answer("none", 0), user, answer("four", 3)], w: 1 },
        { messages: [user, answer("like any")], w: 1 },
      ],
      { packing, sequenceLength: 128 },
    );
    const found = new Map<number, string>();
    for (let row = 0; row < dataset.train.rows.numRows; row++) {
      const {
        weights = [],
        texts,
        isLearnt,
      } = await previewRow(dataset, "train", row, {
        ...{ ledger, tokenizer },
      });
      weights.forEach((weight, i) => assert.equal(weight > 0, isLearnt[i]));
      for (const { start, text } of texts) {
        const weight = weights[start] ?? 0;
        found.set(weight, (found.get(weight) ?? "") + text);
      }
    }
    found.delete(0);
    assert.deepEqual(
      [...found].toSorted(([a], [b]) => a - b),
      [
        [0.5, "five<|im_end|>"],
        [1, "like any<|im_end|>"],
        [2, "4<|im_end|>"],
        [3, "four<|im_end|>"],
      ],
    );
    dataset.close();
  });
}

test("weights of messages need no column, and ShareGPT's turns have them too", async () => {
  const turns = [
    { from: "human", value: "2 + 2?" },
    { from: "gpt", value: "4", weight: 0.125 },
  ];
  const { dataset } = await prepared([{ conversations: turns }], {}, null);
  assert.deepEqual(distinct(batchOf(dataset)["weights"]), [0, 0.125]);
  dataset.close();
});

test("rows of the weight 0 are left out, and told; the rest is as if they were not there", async () => {
  const rows = [1, 0, 2, 0].map((w, i) => ({ prompt: "Say", completion: ` ${i}`, w }));
  const { dataset, file } = await prepared(rows);
  assert.deepEqual(dataset.weightless, { count: 2, first: `${file}:2` });
  const others = await prepared(rows.filter(({ w }) => w > 0));
  assert.equal(await rowsSha256(dataset.train.rows), await rowsSha256(others.dataset.train.rows));
  const plain = await prepared(rows.map((row) => ({ ...row, w: 1 })));
  assert.notEqual(await rowsSha256(dataset.train.rows), await rowsSha256(plain.dataset.train.rows));
  for (const each of [dataset, others.dataset, plain.dataset]) each.close();
});

test("rows with labels count by their weights, a number or its text", async () => {
  const rows = [
    { text: "good", label: "pos", w: 0.5 },
    { text: "bad", label: "neg", w: " 2.25 " },
    { text: "fine", label: "pos", w: "1e0" },
  ];
  const labelReaderOf = () => objectiveOf("single_label_classification").labels ?? assert.fail();
  const { dataset } = await prepared(rows, { labelReaderOf });
  assert.deepEqual(batchOf(dataset)["weights"], Float32Array.of(0.5, 2.25, 1, 0));
  assert.deepEqual(dataset.train.rows.targetsOf?.(1)["weights"], Float32Array.of(2.25));
  const job = { kind: "single_label_classification", numLabels: 2, isWeighted: true };
  const { weightOf } = objectiveOf(job.kind);
  assert.equal(weightOf(batchOf(dataset), job), 3.75);
  const classWeights = { ...job, settings: { classWeights: [2, 0.5] } };
  assert.equal(weightOf(batchOf(dataset), classWeights), 0.25 + 4.5 + 0.5);
  dataset.close();
});

test("what is no weight is refused with its file and line", async () => {
  const text = { text: "a text", w: 1 };
  const failure = async (
    row: unknown,
    columns = { weight: "w" },
    first: unknown = text,
  ): Promise<string> => {
    try {
      const { dataset } = await prepared([first, row], {}, columns);
      dataset.close();
    } catch (error) {
      if (isLockstepError(error)) return `${error.code} ${error.message}`;
      throw error;
    }
    return assert.fail("it was taken");
  };
  for (const [w, problem] of [
    [-1, "is -1, not a number from 0 to 1024"],
    ["NaN", 'is "NaN", not a number from 0 to 1024'],
    ["", 'is "", not a number'],
    [true, "is true, not a number"],
    [[1], "is \\[1\\], not a number"],
    [1025, "is 1025, not a number from 0 to 1024; only ratios count: divide"],
    [1e-9, "is 1e-9, and weights are multiples of 2\\^-24; only ratios count: multiply"],
  ] as const) {
    const message = await failure({ text: "a text", w });
    assert.match(
      message,
      new RegExp(`^E_DATA_ROW_FORMAT .*jsonl:2: .*the weight in "w" ${problem}`),
    );
  }
  for (const row of [{ text: "a text" }, { text: "a text", w: null }]) {
    assert.match(await failure(row), /jsonl:2: .*it has no weight in "w"/);
  }
  assert.match(
    await failure(text, { weight: "loss" }),
    /^E_DATA_COLUMNS.*columns names "loss" for weight/,
  );
  const ok = { messages: [user, answer("4")], w: 1 };
  const messages = (first: unknown, w = 1) =>
    failure({ messages: [first, user, answer("4")], w }, { weight: "w" }, ok);
  assert.match(
    await messages({ ...user, weight: 0.5 }),
    /message 1 has the weight 0.5, and only what the assistant says/,
  );
  assert.match(await messages(answer("4", -2)), /the weight of message 1 is -2/);
  assert.match(await messages(answer("4", 1000), 2), /its weight 2 times 1000.* is 2000/);
  assert.match(await messages(answer("4", 1e-5), 1e-3), /its weight 0.001 times 0.00001001,/);
  assert.match(
    await messages({ ...answer("4", 0.5), loss_weight: 2 }),
    /message 1 has the weight 0.5 and the loss_weight 2/,
  );
});

test("a column of weights stands beside whatever else says what columns hold", async () => {
  await writeFile(
    join(directory, "dataset_info.json"),
    JSON.stringify({
      talks: { file_name: "talks.jsonl", formatting: "openai", columns: { messages: "messages" } },
      own: { file_name: "talks.jsonl", columns: { prompt: "body", weight: "w" } },
    }),
  );
  const find = (
    name: Parameters<typeof findSources>[0][number],
    columns: Readonly<Record<string, string>> | null,
  ) => findSources([name], { datasetDir: directory, columns });
  const [talks] = await find("talks", { weight: "w" });
  assert.deepEqual(talks?.mapping, { weight: "w" });
  const [own] = await find("own", null);
  assert.deepEqual(own?.columns, { text: "body", weight: "w" });
  const [typed] = await find({ path: "a.jsonl", type: "completion" }, { weight: "w" });
  assert.deepEqual(typed?.mapping, { weight: "w" });
  await assert.rejects(find("sotu", { weight: "w" }), /E_CONFIG_CONFLICT|columns and dataset/);
  await assert.rejects(find("talks", { text: "t", weight: "w" }), /columns and dataset/);
});

test("sums of weights are the same in any order", () => {
  const weights = Float32Array.from({ length: 10_000 }, (_, i) =>
    exactWeight(Math.abs(Math.sin(i)) * (i % 7 === 0 ? maxWeight : 0.01) + 1e-6),
  );
  const targets = new Int32Array(weights.length);
  const sum = sumOfWeights(targets, weights);
  assert.equal(sumOfWeights(targets, weights.toReversed()), sum);
  assert.equal(sumOfWeights(targets, weights.toSorted()), sum);
  assert.equal(exactWeight(0.1), Math.fround(Math.round(0.1 * 2 ** 24) / 2 ** 24));
});
