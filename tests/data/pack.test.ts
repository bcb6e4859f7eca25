import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { checkSequenceLength, packDocuments } from "#lib/data/index";

const separator = 0;
const documentTokens = fc.array(fc.array(fc.integer({ min: 1, max: 999 }), { maxLength: 30 }), {
  maxLength: 12,
});

test("packed blocks, cut at the separators, give the documents again up to the dropped tokens", () => {
  fc.assert(
    fc.property(documentTokens, fc.integer({ min: 2, max: 16 }), (documents, sequenceLength) => {
      const packed = packDocuments(
        documents.map((ids) => Int32Array.from(ids)),
        {
          sequenceLength,
          separatorTokenId: separator,
        },
      );
      const stream = documents.flatMap((ids) => [...ids, separator]);
      assert.equal(packed.tokens.length, packed.numBlocks * sequenceLength);
      assert.ok(packed.droppedTokens < sequenceLength);
      assert.equal(packed.tokens.length + packed.droppedTokens, stream.length);
      assert.deepEqual([...packed.tokens], stream.slice(0, packed.tokens.length));
    }),
    { numRuns: 300 },
  );
});

test("without a separator documents follow one another directly", () => {
  const packed = packDocuments([Int32Array.of(1, 2, 3), Int32Array.of(4, 5)], {
    sequenceLength: 2,
    separatorTokenId: null,
  });
  assert.deepEqual([...packed.tokens], [1, 2, 3, 4]);
  assert.deepEqual([packed.numBlocks, packed.droppedTokens], [2, 1]);
});

test("a sequence length below two or beyond the model's context is refused", () => {
  for (const [length, maximum] of [
    [1, 1024],
    [0, 1024],
    [2.5, 1024],
    [Number.NaN, 1024],
    [1025, 1024],
  ] as const) {
    assert.throws(
      () => checkSequenceLength(length, maximum),
      (error) => isLockstepError(error) && error.code === "E_SEQUENCE_LENGTH",
    );
  }
  checkSequenceLength(2, 1024);
  checkSequenceLength(1024, 1024);
});
