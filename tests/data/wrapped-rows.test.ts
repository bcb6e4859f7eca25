import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { after, test } from "node:test";
import fc from "fast-check";
import { evaluationBatches } from "#lib/data/index";
import { wrappedRows } from "#lib/data/rows";
import { TokenStore } from "#lib/data/token-store";
import { tokensOf } from "#tests/support/batches";

const store = new TokenStore(tmpdir());
after(() => store.close());
const texts = fc.array(fc.array(fc.integer({ min: 1, max: 999 }), { maxLength: 30 }), {
  maxLength: 12,
});

test("wrapped rows give the texts again, one after another, up to the dropped tokens", () => {
  fc.assert(
    fc.property(texts, fc.integer({ min: 2, max: 16 }), (documents, sequenceLength) => {
      const pieces = {
        starts: Float64Array.from(documents, (ids) => store.append(ids)),
        lengths: Int32Array.from(documents, (ids) => ids.length),
      };
      const stream = documents.flat();
      const isShort = stream.length >= 2 && stream.length < sequenceLength;
      const numRows = isShort ? 1 : Math.floor(stream.length / sequenceLength);
      const rows = wrappedRows(store, pieces, { sequenceLength });
      assert.equal(rows.numRows, numRows);
      assert.equal(rows.numTokens + rows.droppedTokens, stream.length);
      assert.equal(rows.numTokens, isShort ? stream.length : numRows * sequenceLength);
      const tokens = evaluationBatches(rows, 1).flatMap((batch) => [...tokensOf(batch)]);
      assert.equal(tokens.length, numRows * sequenceLength);
      assert.deepEqual(tokens.slice(0, rows.numTokens), stream.slice(0, rows.numTokens));
    }),
    { numRuns: 300 },
  );
});
