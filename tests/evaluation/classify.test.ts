/** Logits of texts against those of transformers: padded and batched here as they were not there. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openModel } from "#run/open-model";
import { openSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { TextClassifier } from "#lib/evaluation/classify/index";
import { assertClose } from "#tests/support/compare";

interface Case {
  readonly input_ids: readonly (readonly number[])[];
  readonly attention_mask: readonly (readonly number[])[];
}

for (const name of ["bert-seqcls", "roberta-seqcls", "distilbert-seqcls", "qwen3-seqcls"]) {
  test(`${name}: logits are those of transformers, in any batch`, async () => {
    const directory = join(packageRoot, "tests/fixtures/models", name);
    const read = (file: string): unknown => JSON.parse(readFileSync(join(directory, file), "utf8"));
    const reference = read("case.json") as Case;
    const texts = reference.input_ids.map((ids, row) =>
      Int32Array.from(ids.filter((_, i) => reference.attention_mask[row]?.[i] === 1)),
    );
    const expected = await openSafetensors(join(directory, "expected.safetensors"));
    const logits = await expected.readFloat32("logits");
    await expected.close();
    const { model, readWeight, close } = await openModel(directory);
    assert.ok(model.task === "sequence-classification");
    const { numLabels } = model;
    try {
      const narrow = {
        model,
        readWeight,
        maxLength: 24,
        precision: "bf16",
      } as const;
      const packed = await TextClassifier.create({ ...narrow, packsWeights: true });
      const first = packed.logits(texts);
      assert.deepEqual(packed.logits(texts), first, "what is packed is used again");
      packed.close();
      assertClose(Float32Array.from(first.flatMap((values) => [...values])), logits, 2e-2, "bf16");
      // Parts of a row's tokens, of rows, and of an odd number of them.
      for (const [batchSize, numParts] of [
        [1, 1],
        [1, 2],
        [2, 2],
        [3, 2],
      ] as const) {
        const options = { model, readWeight, maxLength: 24, batchSize, numParts };
        const classifier = await TextClassifier.create(options);
        const scores = classifier.logits(texts);
        classifier.close();
        assert.equal(scores.length, texts.length);
        scores.forEach((values, row) =>
          assertClose(
            values,
            logits.subarray(row * numLabels, (row + 1) * numLabels),
            1e-5,
            `text ${row}, batch ${batchSize} in ${numParts} parts`,
          ),
        );
      }
    } finally {
      await close();
    }
  });
}
