import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { type Batch, hasField, ignoredTarget } from "#lib/core/batch";
import { packageRoot } from "#lib/core/paths";
import { packBestFit } from "#lib/data/best-fit";
import { ContentNumbers } from "#lib/data/content-numbers";
import {
  createTrainingPlan,
  type DatasetSpec,
  evaluationBatches,
  loadTokenizer,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
} from "#lib/data/index";
import { TokenStore } from "#lib/data/token-store";
import { targetsOf, tokensOf } from "#tests/support/batches";

const directory = await mkdtemp(join(tmpdir(), "lockstep-examples-"));
after(() => rm(directory, { recursive: true }));
const tokenizer = await loadTokenizer(join(packageRoot, "tests/fixtures/tok"));

let numFiles = 0;
async function jsonl(rows: readonly unknown[]): Promise<string> {
  const path = join(directory, `${numFiles++}.jsonl`);
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  return path;
}

async function prepare(
  rows: readonly unknown[],
  options: Partial<PrepareOptions> = {},
  spec: Partial<DatasetSpec> = {},
): Promise<PreparedDataset> {
  const dataset = await prepareDataset(
    { train: [{ source: await jsonl(rows) }], validationFraction: 0, ...spec },
    {
      ...{ tokenizer, sequenceLength: 48, vocabSize: 277, maxSequenceLength: 512, seed: 1 },
      ...options,
    },
  );
  after(() => dataset.close());
  return dataset;
}

function failure(code: string, facts: object = {}): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isLockstepError(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.deepEqual({ ...error.details, ...facts }, error.details);
    return true;
  };
}

/** Tokens and learnt targets of each example in a batch of one row, by its segments. */
function examplesIn(batch: Batch): { tokens: number[]; learnt: number[] }[] {
  const [tokens, targets, { positions }] = [tokensOf(batch), targetsOf(batch), batch.fields];
  const segments = (batch.fields["segments"] as Int32Array | undefined) ?? tokens.map(() => 1);
  const examples: { tokens: number[]; learnt: number[] }[] = [];
  segments.forEach((segment, i) => {
    if (segment === 0) {
      assert.equal(tokens[i], 0);
      assert.equal(targets[i], ignoredTarget);
      return;
    }
    const example = (examples[segment - 1] ??= { tokens: [], learnt: [] });
    if (positions !== undefined) assert.equal(positions[i], example.tokens.length);
    example.tokens.push(tokens[i] ?? 0);
    const target = targets[i] ?? 0;
    if (target === ignoredTarget) return;
    assert.equal(segments[i + 1], segment, "a target belongs to the token's own example");
    assert.equal(target, tokens[i + 1]);
    example.learnt.push(target);
  });
  return examples;
}

const text = (ids: readonly number[]): Promise<string> =>
  tokenizer.decode(ids, { skipSpecialTokens: false });

const rowsOfAllFormats = {
  "prompt-completion": { prompt: "hello", completion: " world" },
  messages: {
    messages: [
      { role: "user", content: "hello" },
      { role: "assistant", content: "the thing" },
    ],
  },
  alpaca: { instruction: "the", input: "of", output: "theory" },
  sharegpt: {
    conversations: [
      { from: "human", value: "a" },
      { from: "gpt", value: "b" },
      { from: "human", value: "c" },
      { from: "gpt", value: "d" },
    ],
  },
};

test("what is learnt of each format is its answers with their end, and nothing else", async () => {
  const learnt: Record<string, string[]> = {};
  for (const [format, row] of Object.entries(rowsOfAllFormats)) {
    const { train, layout } = await prepare([row], { sequenceLength: 128 });
    assert.equal(layout, "padded");
    const [batch] = evaluationBatches(train.rows, 1);
    assert.ok(batch !== undefined && batch.fields["segments"] === undefined);
    learnt[format] = await Promise.all(examplesIn(batch).map((example) => text(example.learnt)));
    const supervised = targetsOf(batch).filter((target) => target !== ignoredTarget).length;
    assert.equal(train.report.supervisedTokens, supervised);
    assert.equal(train.rows.lossWeight(0), supervised);
  }
  assert.deepEqual(learnt, {
    "prompt-completion": [" world<|im_end|>"],
    messages: ["the thing<|im_end|>"],
    alpaca: ["theory<|im_end|>"],
    sharegpt: ["b<|im_end|>d<|im_end|>"],
  });
});

const manyRows = Array.from({ length: 60 }, (_, i) => ({
  messages: [
    { role: "user", content: "q".repeat(1 + ((i * 7) % 11)) },
    { role: "assistant", content: `answer ${i} `.repeat(1 + (i % 3)) },
  ],
}));

test("packed rows hold the examples of padded rows, each in its own segment", async () => {
  const padded = await prepare(manyRows, { sequenceLength: 128 });
  const packed = await prepare(manyRows, { sequenceLength: 128, packing: true });
  assert.equal(packed.layout, "packed");
  assert.ok(hasField(packed.train.rows.inputs, "segments"));
  const all = (dataset: PreparedDataset): { tokens: number[]; learnt: number[] }[] =>
    evaluationBatches(dataset.train.rows, 1).flatMap((batch) => examplesIn(batch));
  const ofPacked = all(packed);
  const sorted = (examples: readonly object[]): string[] =>
    examples.map((e) => JSON.stringify(e)).sort();
  // A padded row ends in tokens 0, which a segment leaves out.
  const ofPadded = all(padded).map(({ tokens, learnt }) => ({
    tokens: tokens.slice(0, tokens.lastIndexOf(tokens.findLast((id) => id !== 0) ?? 0) + 1),
    learnt,
  }));
  assert.deepEqual(sorted(ofPacked), sorted(ofPadded));
  assert.equal(ofPacked.length, 60);
  assert.ok(packed.train.report.numRows < 25, `${packed.train.report.numRows} rows`);
  assert.equal(packed.train.report.supervisedTokens, padded.train.report.supervisedTokens);
  assert.equal(packed.train.report.rowTokens, padded.train.report.rowTokens);
});

test("the plan's normaliser is the number of targets in its batches, ragged and masked", async () => {
  for (const packing of [null, true]) {
    const { train } = await prepare(manyRows, { sequenceLength: 128, packing });
    const plan = createTrainingPlan({
      ...{ rows: train.rows, seed: 3, rowsPerStep: 4, microBatchSize: 2 },
      ...{ gradientGroups: 2, numEpochs: 1 },
    });
    let total = 0;
    for (let step = 0; step < plan.totalSteps; step++) {
      const count = [0, 1]
        .flatMap((group) => plan.microBatches(step, group))
        .reduce(
          (sum, batch) => sum + targetsOf(batch).filter((t) => t !== ignoredTarget).length,
          0,
        );
      assert.equal(plan.lossWeight(step), count);
      total += count;
    }
    assert.equal(total, train.report.supervisedTokens);
  }
});

test("rows of like length come together, the longest of all first, each once an epoch", async () => {
  const { train } = await prepare(manyRows, { sequenceLength: 128 });
  const plan = createTrainingPlan({
    ...{ rows: train.rows, seed: 3, rowsPerStep: 4, microBatchSize: 2, gradientGroups: 1 },
    ...{ numEpochs: 2, sampling: "group_by_length" as const },
  });
  for (const epoch of [0, 1]) {
    const order = Array.from({ length: 15 }, (_, step) => [
      ...plan.rowIndices(epoch * 15 + step),
    ]).flat();
    assert.deepEqual(
      [...order].sort((a, b) => a - b),
      Array.from({ length: 60 }, (_, i) => i),
    );
    const lengths = order.map((row) => train.rows.lengthOf(row));
    assert.equal(lengths[0], Math.max(...lengths));
    // 60 rows are cut into groups of 12, as transformers does with 60 // (4 * 4) steps of 4.
    for (let i = 1; i < 60; i++) {
      if (i % 12 > 1) assert.ok((lengths[i] ?? 0) <= (lengths[i - 1] ?? 0), lengths.join(" "));
    }
  }
  const inOrder = createTrainingPlan({
    ...{ rows: train.rows, seed: 3, rowsPerStep: 4, microBatchSize: 2, gradientGroups: 1 },
    ...{ numEpochs: 2, sampling: "sequential" as const },
  });
  assert.deepEqual([...inOrder.rowIndices(16)], [4, 5, 6, 7]);
});

test("what is too long is cut at its end and counted; what then has no target is a bad row", async () => {
  const long = { prompt: "hello ", completion: "x".repeat(100) };
  const { train } = await prepare([long, rowsOfAllFormats["prompt-completion"]]);
  assert.equal(train.report.truncatedExamples, 1);
  const length = (await tokenizer.encode(`hello ${"x".repeat(100)}`)).length + 1;
  assert.equal(train.report.truncatedTokens, length - 48);
  assert.equal(train.report.droppedTokens, length - 48);
  const hidden = { prompt: "y".repeat(100), completion: "never seen" };
  const file = await jsonl([hidden]);
  await assert.rejects(
    prepare([], {}, { train: [{ source: file }] }),
    failure("E_DATA_NOTHING_SUPERVISED", { place: `${file}:1`, maxLength: 48 }),
  );
});

test("rows that cannot be learnt end the run, or are counted and listed", async () => {
  const user = { role: "user", content: "q" };
  const good = rowsOfAllFormats.messages;
  const bad = [
    [{ messages: [user] }, "E_DATA_NO_ANSWER"],
    [{ messages: [user, { role: "assistant", content: "" }] }, "E_DATA_NO_ANSWER"],
    [{ messages: [user, { role: "assistant", content: "a", weight: 0 }] }, "E_DATA_NO_ANSWER"],
    [{ messages: [user, { role: "assistant", content: 3 }] }, "E_DATA_ROW_FORMAT"],
    [{ messages: [user, { role: "assistant", content: "a", weight: -2 }] }, "E_DATA_ROW_FORMAT"],
    [{ messages: "q" }, "E_DATA_ROW_FORMAT"],
    [{ text: "no messages" }, "E_DATA_ROW_FORMAT"],
    [
      {
        messages: [
          { role: "user", content: "long ".repeat(30) },
          { role: "assistant", content: "a" },
        ],
      },
      "E_DATA_NOTHING_SUPERVISED",
    ],
  ] as const;
  for (const [row, code] of bad) await assert.rejects(prepare([good, row]), failure(code), code);
  const rows = [good, ...bad.flatMap(([row]) => [row, good])];
  const { train, rejectedExamples, listedRejections } = await prepare(
    rows,
    {},
    { onBadExample: "skip" },
  );
  assert.equal(train.report.numExamples, bad.length + 1);
  assert.equal(rejectedExamples, bad.length);
  const codes = listedRejections.map((line) => line.split(":")[0] ?? "");
  const byName = (a: string, b: string): number => (a < b ? -1 : 1);
  assert.deepEqual(codes.sort(byName), bad.map(([, code]) => code).sort(byName));
  await assert.rejects(
    prepare([good, ...bad.map(([row]) => row)], {}, { onBadExample: "skip" }),
    failure("E_DATA_TOO_MANY_BAD_ROWS", { numBad: bad.length, numRows: bad.length + 1 }),
  );
  // A tokenizer of another model is no fault of a row.
  await assert.rejects(
    prepare([good], { vocabSize: 200 }, { onBadExample: "skip" }),
    failure("E_TOKEN_OUT_OF_VOCABULARY", { vocabSize: 200 }),
  );
});

test("a completion of blanks and end tokens, or without an answer, is a bad row", async () => {
  const [user, answer] = rowsOfAllFormats.messages.messages;
  for (const row of [
    { prompt: "q", completion: " \n" },
    { prompt: "q", completion: " <|im_end|>\n" },
    { prompt: [user, answer], completion: [user] },
    // Nothing predicts the first token of a row: what is left is the end token.
    { prompt: "", completion: "d" },
  ]) {
    await assert.rejects(prepare([row]), failure("E_DATA_NO_ANSWER"));
  }
  // A special token that the model is to answer with is an answer.
  const path = await mkdtemp(join(directory, "tok-"));
  await cp(join(packageRoot, "tests/fixtures/tok"), path, { recursive: true });
  const file = join(path, "tokenizer.json");
  const definition = JSON.parse(await readFile(file, "utf8")) as { added_tokens: object[] };
  const yes = { ...definition.added_tokens[0], id: 277, content: "<|yes|>", special: true };
  definition.added_tokens.push(yes);
  await writeFile(file, JSON.stringify(definition));
  const extended = { tokenizer: await loadTokenizer(path), vocabSize: 278 };
  for (const row of [
    { prompt: "q", completion: "<|yes|>" },
    { messages: [user, { role: "assistant", content: "<|yes|>" }] },
  ]) {
    const { train } = await prepare([row], extended);
    const [batch] = evaluationBatches(train.rows, 1);
    assert.ok(batch !== undefined);
    const [example] = examplesIn(batch);
    assert.deepEqual([example?.learnt[0], example?.learnt.length], [277, 2]);
  }
  const { train } = await prepare([{ prompt: "", completion: "d!e" }]);
  assert.ok(train.report.supervisedTokens > 1);
});

test("a row that is nested without end is a bad row like any other", async () => {
  const deep = `${"[".repeat(50_000)}${"]".repeat(50_000)}`;
  const messages = '{"role":"user","content":"q"},{"role":"assistant","content":"a"}';
  const file = join(directory, "deep.jsonl");
  const good = `{"messages":[${messages}]}`;
  await writeFile(
    file,
    [good, `{"messages":[${messages.slice(0, -1)},"x":${deep}}]}`, good].join("\n"),
  );
  const train = [{ source: file }];
  await assert.rejects(
    prepare([], {}, { train }),
    failure("E_DATA_ROW_FORMAT", { place: `${file}:2` }),
  );
  const { rejectedExamples } = await prepare([], {}, { train, onBadExample: "skip" });
  assert.equal(rejectedExamples, 1);
});

test("best fit fills rows, loses nothing and never overfills", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 200 }).chain((capacity) =>
        fc.record({
          capacity: fc.constant(capacity),
          lengths: fc.array(fc.integer({ min: 1, max: capacity }), { maxLength: 80 }),
        }),
      ),
      ({ capacity, lengths }) => {
        const bins = packBestFit(lengths, capacity);
        const items = bins.flatMap((bin) => [...bin]);
        assert.deepEqual(
          items.sort((a, b) => a - b),
          lengths.map((_, i) => i),
        );
        const fills = bins.map((bin) => bin.reduce((sum, item) => sum + (lengths[item] ?? 0), 0));
        assert.ok(fills.every((fill) => fill <= capacity));
        // Any two rows hold more than one could: else best fit would have joined them.
        const [least = capacity, next = capacity] = fills.sort((a, b) => a - b);
        assert.ok(fills.length < 2 || least + next > capacity);
      },
    ),
    { numRuns: 500 },
  );
  // Best-fit decreasing by hand: 6+4, 5+5, 3+3+2+2.
  const lengths = [3, 6, 5, 2, 4, 3, 5, 2];
  const filled = packBestFit(lengths, 10).map((bin) => [...bin].map((item) => lengths[item]));
  assert.deepEqual(filled, [
    [6, 4],
    [5, 5],
    [3, 3, 2, 2],
  ]);
});

test("a store gives back what was put in, from memory and from its file, and leaves no file", async () => {
  const spill = join(directory, "spill");
  const store = new TokenStore(spill, { maxInMemory: 2 ** 20 });
  const numValues = 3.3 * 2 ** 20;
  const chunk = new Int32Array(77_777);
  while (store.length < numValues) {
    for (let i = 0; i < chunk.length; i++) chunk[i] = Math.imul(store.length + i, 0x9e3779b1);
    store.append(chunk);
  }
  const into = new Int32Array(50_000);
  for (const start of [0, 2 ** 20 - 100, 2 ** 21 - 1, 2.5 * 2 ** 20, store.length - into.length]) {
    store.read(start, into);
    for (let i = 0; i < into.length; i += 997) {
      assert.equal(into[i], Math.imul(start + i, 0x9e3779b1));
    }
  }
  assert.deepEqual(await readdir(spill), []);
  store.close();
});

test("contents are numbered in the order of their first appearance, however many there are", () => {
  const numbers = new ContentNumbers();
  const oracle = new Map<string, number>();
  for (let i = 0; i < 20_000; i++) {
    const content = `content ${(i * i) % 7919}`;
    if (!oracle.has(content)) oracle.set(content, oracle.size);
    assert.equal(numbers.numberOf(content), oracle.get(content));
  }
  assert.equal(numbers.size, oracle.size);
  assert.ok(numbers.size > 3000);
});
