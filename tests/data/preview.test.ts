import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { ignoredTarget, type Batch } from "#lib/core/batch";
import { packageRoot } from "#lib/core/paths";
import {
  createTrainingPlan,
  DataLedger,
  evaluationBatches,
  loadTokenizer,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
  type PreviewRow,
  previewRow,
  rowsOfPlace,
  type Split,
} from "#lib/data/index";
import { labelsOf, targetsOf, tokensOf } from "#tests/support/batches";
import { classLabels } from "#lib/objectives/class-labels";

// What is shown is what is learnt: the ids and targets of the plan's batches, and the text that was written
// into the file at the place that is named.

const fixtures = join(packageRoot, "tests/fixtures");
const directory = await mkdtemp(join(tmpdir(), "lockstep-preview-"));
after(() => rm(directory, { recursive: true }));
const tokenizer = await loadTokenizer(join(fixtures, "tok"));

/** Texts with characters of one to four bytes, and special tokens written out. */
const text = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "word",
        " of",
        "\n",
        "é",
        "漢字",
        "🙂",
        "👩‍👩‍👧",
        "<|im_end|>",
        "\t",
        "\u202e",
      ),
      fc.string({ minLength: 1, maxLength: 5 }),
    ),
    { minLength: 1, maxLength: 12 },
  )
  .map((parts) => parts.join(""));

interface Prepared {
  readonly dataset: PreparedDataset;
  readonly ledger: DataLedger;
  readonly rowsOf: (split: Split) => Promise<PreviewRow[]>;
}

let numFiles = 0;
async function prepare(
  rows: readonly object[],
  options: Partial<PrepareOptions>,
): Promise<Prepared & { readonly file: string }> {
  const file = join(directory, `${numFiles++}.jsonl`);
  await writeFile(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  const ledger = new DataLedger();
  const dataset = await prepareDataset(
    { train: [{ source: file }], validationFraction: 0.3, onBadExample: "skip" },
    {
      labelReaderOf: () => classLabels,
      ...{ tokenizer, vocabSize: 277, maxSequenceLength: 64, sequenceLength: 24, seed: 1 },
      ...options,
      observer: ledger,
    },
  );
  const rowsOf = (split: Split): Promise<PreviewRow[]> =>
    Promise.all(
      Array.from({ length: dataset[split]?.rows.numRows ?? 0 }, (_, row) =>
        previewRow(dataset, split, row, { ledger, tokenizer }),
      ),
    );
  return { dataset, ledger, rowsOf, file };
}

/** A row of a batch without its padding, as ids and the targets that they are of. */
function learntOf(batch: Batch, row: number, length: number) {
  const width = tokensOf(batch).length / batch.numRows;
  const part = (values: Int32Array): Int32Array => values.subarray(row * width, (row + 1) * width);
  const isLabelled = batch.fields["label"] !== undefined;
  const targets = isLabelled ? labelsOf(batch).subarray(row, row + 1) : part(targetsOf(batch));
  return {
    ids: [...part(tokensOf(batch)).subarray(0, length)],
    labels: Array.from({ length }, (_, i) => (i === 0 ? ignoredTarget : (targets[i - 1] ?? 0))),
    first: targets[0] ?? 0,
    numTargets: targets.filter((target) => target !== ignoredTarget).length,
  };
}

function assertIsBatch(shown: PreviewRow, batch: Batch, row: number): void {
  const { ids, labels, first, numTargets } = learntOf(batch, row, shown.ids.length);
  assert.deepEqual([...shown.ids], ids);
  if (shown.label !== undefined) {
    assert.deepEqual(["number" in shown.label && shown.label.number, numTargets], [first, 1]);
    assert.ok(!shown.isLearnt.includes(true));
    return;
  }
  assert.deepEqual(
    labels,
    ids.map((id, i) => (shown.isLearnt[i] === true ? id : ignoredTarget)),
  );
  assert.equal(shown.isLearnt.filter((learnt) => learnt).length, numTargets);
}

/** Every row of both sides against the batches that the plan and the evaluation give an engine. */
async function assertShowsBatches({ dataset, rowsOf }: Prepared): Promise<void> {
  const [train, validation] = [await rowsOf("train"), await rowsOf("validation")];
  const plan = createTrainingPlan({
    ...{ rows: dataset.train.rows, seed: 5, numEpochs: 1 },
    ...{ rowsPerStep: Math.min(2, train.length), microBatchSize: 1, gradientGroups: 1 },
  });
  const seen = new Set<number>();
  for (let step = 0; step < plan.totalSteps; step++) {
    const batches = plan.microBatches(step, 0);
    for (const [i, index] of plan.rowIndices(step).entries()) {
      assertIsBatch(train[index] ?? assert.fail(), batches[i] ?? assert.fail(), 0);
      seen.add(index);
    }
  }
  assert.equal(seen.size, train.length);
  const batches =
    dataset.validation === undefined ? [] : evaluationBatches(dataset.validation.rows, 1);
  assert.equal(batches.length, validation.length);
  for (const [i, batch] of batches.entries()) {
    assertIsBatch(validation[i] ?? assert.fail(), batch, 0);
  }
}

const joined = (row: PreviewRow, from: number, length: number): string =>
  row.texts
    .filter(({ start }) => start >= from && start < from + length)
    .map((each) => each.text)
    .join("");

const lineOf = (place: string): number => Number(/:(\d+)$/.exec(place)?.[1]) - 1;

for (const packing of [null, true]) {
  test(`chats ${packing === true ? "that share rows" : "a row each"}: ids, targets, places, and the text with what was cut`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(text, text), { minLength: 6, maxLength: 14 }),
        async (pairs) => {
          const rows = pairs.map(([question, answer], i) => ({
            messages: [
              { role: "user", content: `${i}` },
              { role: "assistant", content: answer },
              { role: "user", content: question },
              { role: "assistant", content: `${i}!` },
            ],
          }));
          const prepared = await prepare(rows, { packing, sequenceLength: 48 });
          await assertShowsBatches(prepared);
          for (const split of ["train", "validation"] as const) {
            for (const row of await prepared.rowsOf(split)) {
              for (const {
                place,
                offset,
                length,
                before,
                numTokens,
                numCut,
                cutText,
              } of row.pieces) {
                const { messages } = rows[lineOf(place)] ?? assert.fail(place);
                const rendered = messages
                  .map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`)
                  .join("");
                const ids = await tokenizer.encode(rendered);
                const kept = [...row.ids.subarray(offset, offset + length)];
                assert.deepEqual(kept, [...ids.subarray(0, length)]);
                assert.deepEqual([before, numTokens, numCut], [0, ids.length, ids.length - length]);
                assert.equal(
                  cutText,
                  await tokenizer.decode(ids.subarray(length), { skipSpecialTokens: false }),
                );
                if (numCut === 0) assert.equal(joined(row, offset, length), rendered);
              }
            }
          }
        },
      ),
      { numRuns: 25 },
    );
  });
}

for (const packing of [null, false]) {
  test(`texts ${packing === null ? "laid end to end" : "a row each"}: ids, targets, and the tokens of each file and line`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 8, maxLength: 16 }), async (texts) => {
        const rows = texts.map((each, i) => ({ text: `${i} ${each} ${i}.` }));
        const prepared = await prepare(rows, { packing, sequenceLength: 8 });
        await assertShowsBatches(prepared);
        const found = new Map<string, number[]>();
        for (const split of ["train", "validation"] as const) {
          for (const { ids, pieces } of await prepared.rowsOf(split)) {
            assert.equal(
              pieces.reduce((sum, { length }) => sum + length, 0),
              ids.length,
            );
            for (const { place, offset, length, before } of pieces) {
              const tokens = found.get(place) ?? [];
              assert.equal(before, tokens.length, "a text goes on where it ended");
              tokens.push(...ids.subarray(offset, offset + length));
              found.set(place, tokens);
            }
          }
        }
        for (const [place, tokens] of found) {
          const { text: whole } = rows[lineOf(place)] ?? assert.fail(place);
          const ids = [...(await tokenizer.encode(whole)), tokenizer.documentSeparatorTokenId];
          assert.deepEqual(tokens, ids.slice(0, tokens.length));
        }
      }),
      { numRuns: 25 },
    );
  });
}

test("prompts and completions: what is learnt is the completion and the end, and the rows have their lines", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(text, text), { minLength: 4, maxLength: 10 }),
      async (pairs) => {
        const rows = pairs.map(([prompt, completion], i) => ({
          prompt: `${prompt}${i}:`,
          completion: `\n${completion}`,
        }));
        const prepared = await prepare(rows, { sequenceLength: 64 });
        await assertShowsBatches(prepared);
        for (const row of await prepared.rowsOf("train")) {
          const [piece = assert.fail()] = row.pieces;
          const { prompt, completion } = rows[lineOf(piece.place)] ?? assert.fail(piece.place);
          if (piece.numCut > 0) continue;
          const learnt = row.ids.filter((_, i) => row.isLearnt[i] === true);
          const end = completion.endsWith("<|im_end|>") ? "" : "<|im_end|>";
          assert.equal(
            await tokenizer.decode(learnt, { skipSpecialTokens: false }),
            completion + end,
          );
          assert.equal(joined(row, 0, row.ids.length), prompt + completion + end);
        }
      },
    ),
    { numRuns: 25 },
  );
});

test("texts with labels: the class of each row, by its number and its name", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(text, fc.constantFrom("good", "bad", "so-so")), {
        minLength: 12,
        maxLength: 20,
      }),
      async (pairs) => {
        // Each class is on the training side.
        const rows = ["good", "bad", "so-so"].flatMap((label) =>
          Array.from({ length: 12 }, (_, i) => ({ text: `${label} ${i}`, label })),
        );
        rows.push(...pairs.map(([each, label], i) => ({ text: `${i} ${each}`, label })));
        const prepared = await prepare(rows, { sequenceLength: 24 });
        await assertShowsBatches(prepared);
        assert.deepEqual(prepared.dataset.classes?.names, ["bad", "good", "so-so"]);
        for (const row of await prepared.rowsOf("train")) {
          const [{ place, numCut, length, numTokens } = assert.fail()] = row.pieces;
          const { text: whole, label } = rows[lineOf(place)] ?? assert.fail(place);
          assert.deepEqual(row.label, {
            name: label,
            number: ["bad", "good", "so-so"].indexOf(label),
          });
          const ids = await tokenizer.encode(whole);
          assert.deepEqual([length + numCut, numTokens], [ids.length, ids.length]);
          assert.deepEqual([...row.ids], [...ids.subarray(0, length)]);
        }
      },
    ),
    { numRuns: 15 },
  );
});

test("an example is found by its place, also one that becomes several or shares a row", async () => {
  const rows = Array.from({ length: 30 }, (_, i) => ({ prompt: `${i}:`, completion: ` ${i}` }));
  const { dataset, ledger, rowsOf, file } = await prepare(rows, { packing: true });
  let numFound = 0;
  for (const split of ["train", "validation"] as const) {
    const shown = await rowsOf(split);
    for (const line of rows.keys()) {
      const place = `${file}:${line + 1}`;
      const found = rowsOfPlace(dataset, split, ledger, (each) => each === place);
      numFound += found.length;
      for (const row of found) {
        assert.ok(shown[row]?.pieces.some((piece) => piece.place === place));
      }
    }
  }
  assert.equal(numFound, rows.length);
});

test("a lone text that is cut in two is shown from its own file on both sides", async () => {
  const file = join(directory, "lone.txt");
  const lines = Array.from({ length: 40 }, (_, i) => `line ${i}`);
  await writeFile(file, lines.join("\n"));
  const ledger = new DataLedger();
  const dataset = await prepareDataset(
    { train: [{ source: file }], validationFraction: 0.5 },
    {
      labelReaderOf: () => classLabels,
      ...{ tokenizer, vocabSize: 277, maxSequenceLength: 64, sequenceLength: 16, seed: 1 },
      observer: ledger,
    },
  );
  const first = await previewRow(dataset, "train", 0, { ledger, tokenizer });
  assert.deepEqual([first.pieces[0]?.place, first.pieces[0]?.format], [file, "text"]);
  assert.ok(lines.join("\n").startsWith(joined(first, 0, 16)));
  const second = await previewRow(dataset, "validation", 0, { ledger, tokenizer });
  assert.equal(second.pieces[0]?.place, file);
  assert.ok(lines.join("\n").includes(joined(second, 0, 16).trimStart()));
  assert.equal(ledger.lengths.length, 2);
});

test("rows that are kept of many keep their places", async () => {
  const rows = Array.from({ length: 40 }, (_, i) => ({ prompt: `${i}:`, completion: ` ${i}` }));
  const { rowsOf } = await prepare(rows, { maxTrainRows: 5 });
  const shown = await rowsOf("train");
  assert.equal(shown.length, 5);
  for (const row of shown) {
    const [piece = assert.fail()] = row.pieces;
    const line = lineOf(piece.place);
    assert.equal(joined(row, 0, row.ids.length), `${line}: ${line}<|im_end|>`);
  }
});

test("the ledger counts rows, blank texts and those that cannot be used", async () => {
  const rows = [{ text: "one" }, { text: "  " }, { text: 2 }, { text: "two" }, { text: "three" }];
  const { ledger, file } = await prepare(rows, { packing: false });
  assert.deepEqual(ledger.sources, [{ source: file, format: "text", numRows: 5, numBlank: 1 }]);
  assert.equal(ledger.numRejected, 1);
  assert.match(ledger.rejected[0]?.message ?? "", /:3: .*"text" is not text/);
  assert.equal(ledger.lengths.length, 3);
});
