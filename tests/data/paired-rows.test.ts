import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  ignoredTarget,
  integerField,
  marginField,
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
} from "#lib/core/batch";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import {
  createTrainingPlan,
  DataLedger,
  evaluationBatches,
  loadTokenizer,
  type PreparedDataset,
  prepareDataset,
  previewRow,
  rowsSha256,
} from "#lib/data/index";

// Rows with a chosen and a rejected answer become batches of both sequences.

const directory = await mkdtemp(join(tmpdir(), "lockstep-paired-"));
after(() => rm(directory, { recursive: true }));
const tokenizer = await loadTokenizer(join(packageRoot, "tests/fixtures/tok"));
const targets = [
  ...[nextTokenField, rejectedTokensField, rejectedTargetsField],
  ...[pairLengthsField, marginField],
];
const padding = 7;

async function failureOf(action: () => Promise<unknown>): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (isLockstepError(error)) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "no error";
}

let numFiles = 0;
async function prepare(
  rows: readonly object[],
  { onBadExample = "error" }: { readonly onBadExample?: "error" | "skip" } = {},
): Promise<{ readonly dataset: PreparedDataset; readonly ledger: DataLedger }> {
  const file = join(directory, `${numFiles++}.jsonl`);
  await writeFile(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  const ledger = new DataLedger();
  const dataset = await prepareDataset(
    { train: [{ source: file }], validationFraction: 0, onBadExample },
    {
      ...{ tokenizer, vocabSize: 277, maxSequenceLength: 64, sequenceLength: 12, seed: 1 },
      ...{ pairTargets: targets, paddingTokenId: padding, observer: ledger },
    },
  );
  return { dataset, ledger };
}

const idsOf = async (text: string): Promise<number[]> => [
  ...(await tokenizer.encode(text, { addSpecialTokens: false })),
];
const end = tokenizer.eosTokenId ?? -1;

test("a batch has both sequences of a pair, their targets and the row's margin", async () => {
  const { dataset } = await prepare([
    { prompt: "ab", chosen: "cd", rejected: "e", margin: 0.5 },
    { prompt: "f", chosen: "g", rejected: "a text that is far too long", margin: 2 },
  ]);
  assert.equal(dataset.layout, "paired");
  const { rows, report } = dataset.train;
  // No longer than it has to be, in steps of eight, and no longer than a row may be.
  assert.equal(rows.sequenceLength, 12);
  const [batch] = evaluationBatches(rows, 3);
  assert.ok(batch !== undefined);
  const t = rows.sequenceLength;
  const part = (name: string, row: number): number[] => [
    ...integerField(batch, name).subarray(row * t, (row + 1) * t),
  ];
  const [prompt, chosen, rejected] = await Promise.all(["ab", "cd", "e"].map(idsOf));
  const whole = (answer: readonly number[] = []): number[] => [...(prompt ?? []), ...answer, end];
  const padded = (ids: readonly number[], by: number): number[] => [
    ...ids,
    ...Array.from({ length: t - ids.length }, () => by),
  ];
  const next = (answer: readonly number[] = []): number[] =>
    padded(
      [
        ...whole(answer)
          .map((id, i) => (i < (prompt ?? []).length ? ignoredTarget : id))
          .slice(1),
      ],
      ignoredTarget,
    );
  assert.deepEqual(part("tokens", 0), padded(whole(chosen), padding));
  assert.deepEqual(part(rejectedTokensField.name, 0), padded(whole(rejected), padding));
  assert.deepEqual(part(nextTokenField.name, 0), next(chosen));
  assert.deepEqual(part(rejectedTargetsField.name, 0), next(rejected));
  const lengths = integerField(batch, pairLengthsField.name);
  assert.deepEqual([...lengths.subarray(0, 2)], [whole(chosen).length, whole(rejected).length]);
  // The second row's rejected sequence is cut at the row's end; the third is padding.
  assert.equal(lengths[3], t);
  assert.deepEqual([...lengths.subarray(4)], [ignoredTarget, ignoredTarget]);
  assert.deepEqual([...(batch.fields[marginField.name] ?? [])], [0.5, 2, ignoredTarget]);
  assert.equal(report.truncatedExamples, 1);
  assert.equal(
    report.numTokens,
    [...lengths.subarray(0, 4)].reduce((sum, each) => sum + each),
  );
  const plan = createTrainingPlan({
    ...{ rows, seed: 1, rowsPerStep: 2, microBatchSize: 1, gradientGroups: 2, maxSteps: 1 },
  });
  assert.equal(plan.lossWeight(0), 2);
  assert.equal(plan.tokensIn?.(0), 2 * 2 * t);
  dataset.close();
});

test("what is shown of a pair is what its batch has", async () => {
  const { dataset, ledger } = await prepare([{ prompt: "ab", chosen: "cd", rejected: "e" }]);
  const shown = await previewRow(dataset, "train", 0, { ledger, tokenizer });
  const textOf = (texts: readonly { readonly text: string }[]): string =>
    texts.map(({ text }) => text).join("");
  const endText = tokenizer.tokenOf(end) ?? "";
  assert.equal(textOf(shown.texts), `abcd${endText}`);
  assert.equal(textOf(shown.rejected?.texts ?? []), `abe${endText}`);
  assert.equal(shown.isLearnt.filter((learnt) => learnt).length, (await idsOf("cd")).length + 1);
  assert.equal(
    shown.rejected?.isLearnt.filter((learnt) => learnt).length,
    (await idsOf("e")).length + 1,
  );
  dataset.close();
});

test("rows that cannot be learnt are named, and equal answers are told", async () => {
  const good = { prompt: "a", chosen: "b", rejected: "c" };
  const same = { prompt: "a", chosen: "b", rejected: "b" };
  const { dataset } = await prepare([good, same, { ...same, prompt: "x" }]);
  assert.deepEqual(dataset.notes.filter((note) => note.includes("equal")).length, 1);
  assert.match(
    dataset.notes.join("\n"),
    /2 pairs with equal answers, the first at .*\.jsonl:2: nothing is learnt/,
  );
  dataset.close();
  const long = { ...good, prompt: "a prompt that fills the row by itself" };
  assert.match(
    await failureOf(() => prepare([good, long])),
    /E_DATA_NOTHING_SUPERVISED: .*\.jsonl:2: none of the first 12/,
  );
  assert.match(
    await failureOf(() => prepare([good, { text: "a text" }])),
    /E_DATA_NO_ANSWER: .*\.jsonl:2: the row has no chosen answer/,
  );
  const { dataset: rest } = await prepare([good, good, { prompt: "a", chosen: "b" }], {
    onBadExample: "skip",
  });
  assert.equal(rest.rejectedExamples, 1);
  assert.match(rest.listedRejections[0] ?? "", /:3: the row has no rejected answer/);
  rest.close();
});

test("the digest of rows knows both sides, their order and the margin", async () => {
  const row = { prompt: "a", chosen: "b", rejected: "c", margin: 1 };
  const digests = await Promise.all(
    [
      row,
      { ...row, rejected: "d" },
      { ...row, chosen: "c", rejected: "b" },
      { ...row, margin: 2 },
    ].map(async (each) => {
      const { dataset } = await prepare([each]);
      const digest = await rowsSha256(dataset.train.rows);
      dataset.close();
      return digest;
    }),
  );
  assert.equal(new Set(digests).size, digests.length);
});
