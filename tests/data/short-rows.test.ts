import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  type DatasetSpec,
  loadTokenizer,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
} from "#lib/data/index";
import { writeNumberTokenizer } from "#tests/support/number-tokenizer";

const directory = await mkdtemp(join(tmpdir(), "lockstep-short-rows-"));
after(() => rm(directory, { recursive: true }));
// A tokenizer without an end token, so that nothing follows a text.
await writeNumberTokenizer(directory, 64);
const tokenizer = await loadTokenizer(directory);

async function file(name: string, content: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content);
  return path;
}

async function prepare(
  spec: DatasetSpec,
  options: Partial<PrepareOptions> = {},
): Promise<PreparedDataset> {
  const dataset = await prepareDataset(spec, {
    ...{ tokenizer, sequenceLength: 8, vocabSize: tokenizer.vocabSize, maxSequenceLength: 64 },
    ...{ seed: 0, ...options },
  });
  after(() => dataset.close());
  return dataset;
}

test("a text of one token, which has nothing to predict, is no row of its own", async () => {
  const rows = ["1", "2 3 4", "5"].map((text) => JSON.stringify({ text }));
  const spec = {
    train: [{ source: await file("short-texts.jsonl", rows.join("\n")) }],
    validationFraction: 0,
  };
  const alone = { packing: false };
  await assert.rejects(prepare(spec, alone), {
    code: "E_DATA_NOTHING_SUPERVISED",
    message: /^example 1: .*1 tokens/,
  });
  await assert.rejects(prepare({ ...spec, onBadExample: "skip" }, alone), {
    code: "E_DATA_TOO_MANY_BAD_ROWS",
    message: /^2 of 3 rows/,
  });
  // Laid end to end they follow each other.
  const { train } = await prepare(spec);
  assert.equal(train.report.supervisedTokens, train.report.numTokens - 1);
});

test("a file that is trained on and validated on is told", async () => {
  const source = await file("both.jsonl", '{"text":"one"}\n{"text":"two"}\n');
  const { notes } = await prepare({ train: [{ source }], validation: [{ source }] });
  assert.deepEqual(notes, [`${source} is both trained on and validated on`]);
});
