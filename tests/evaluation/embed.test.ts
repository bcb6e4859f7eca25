/** Vectors of texts against those of transformers: padded and batched here, each text alone there. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openModel } from "#run/open-model";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { TextEmbedder } from "#lib/evaluation/embed/index";
import { assertClose } from "#tests/support/compare";

interface Text {
  readonly tokens: readonly number[];
  readonly mean: readonly number[];
  readonly cls: readonly number[];
}

for (const name of ["bert", "roberta", "llama"]) {
  for (const pooling of ["mean", "cls"] as const) {
    test(`${name}: ${pooling} vectors are those of transformers, in any batch`, async () => {
      const directory = join(packageRoot, "tests/fixtures/embeddings", name);
      const texts = JSON.parse(readFileSync(join(directory, "texts.json"), "utf8")) as Text[];
      const { model, readWeight, close } = await openModel(directory);
      const rows = texts.map(({ tokens }) => Int32Array.from(tokens));
      try {
        for (const batchSize of [1, 2]) {
          const embedder = await TextEmbedder.create({
            model,
            readWeight,
            maxLength: 20,
            batchSize,
            pooling,
          });
          const vectors = embedder.embed(rows);
          embedder.close();
          assert.equal(vectors.length, texts.length);
          vectors.forEach((vector, index) =>
            assertClose(vector, texts[index]?.[pooling] ?? [], 1e-5, `text ${index}`),
          );
        }
      } finally {
        await close();
      }
    });
  }
}

test("a text beyond the length is refused", async () => {
  const { model, readWeight, close } = await openModel(
    join(packageRoot, "tests/fixtures/embeddings/bert"),
  );
  const options = { model, readWeight, batchSize: 1 };
  const isTooLong = (error: unknown): boolean =>
    isLockstepError(error) && error.code === "E_SEQUENCE_TOO_LONG";
  try {
    const embedder = await TextEmbedder.create({ ...options, maxLength: 8 });
    assert.throws(() => embedder.embed([new Int32Array(9)]), isTooLong);
    embedder.close();
    await assert.rejects(TextEmbedder.create({ ...options, maxLength: 41 }), isTooLong);
  } finally {
    await close();
  }
});
