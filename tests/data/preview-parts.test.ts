import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { packageRoot } from "#lib/core/paths";
import { lengthFigures, loadTokenizer } from "#lib/data/index";
import { PlaceList } from "#lib/data/place-list";
import { tokenTexts } from "#lib/data/token-texts";

const fixtures = join(packageRoot, "tests/fixtures");
const tokenizer = await loadTokenizer(join(fixtures, "tok"));
const text = fc
  .array(
    fc.oneof(
      fc.constantFrom(" of", "\n", "é", "漢字", "👩‍👩‍👧", "<|im_end|>"),
      fc.string({ maxLength: 5 }),
    ),
  )
  .map((parts) => parts.join(""));

test("texts of tokens joined are the decoded text, for each kind of tokenizer", async () => {
  for (const name of ["tok", "tokenizers/byte_level_bpe", "tokenizers/unigram"]) {
    const each = await loadTokenizer(join(fixtures, name));
    await fc.assert(
      fc.asyncProperty(text, async (whole) => {
        const ids = await each.encode(whole);
        const texts = await tokenTexts(each, ids);
        const decoded = await each.decode(ids, { skipSpecialTokens: false });
        assert.equal(texts.map((part) => part.text).join(""), decoded);
        let next = 0;
        for (const { start, count } of texts) {
          assert.equal(start, next);
          next += count;
        }
        assert.equal(next, ids.length);
      }),
      { numRuns: 60 },
    );
  }
});

test("bytes that are no character, as where a text is cut inside one, are shown as such", async () => {
  const ids = await tokenizer.encode("a🙂b漢");
  const whole = await tokenTexts(tokenizer, ids);
  assert.deepEqual(
    whole.map((part) => part.text),
    ["a", "🙂", "b", "漢"],
  );
  assert.deepEqual(
    whole.map(({ count }) => count),
    [1, 4, 1, 3],
  );
  const cut = await tokenTexts(tokenizer, ids.subarray(0, -1));
  assert.equal(cut.at(-1)?.text, "\ufffd");
});

test("places are given back as they came", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fc.string(),
          fc.tuple(fc.string(), fc.nat()).map(([file, line]) => `${file}:${line}`),
          fc.constantFrom(
            "a.parquet: row 3",
            "speech_007",
            "a:007",
            "12",
            "",
            "a:99999999999999999999",
          ),
        ),
      ),
      (places) => {
        const list = new PlaceList();
        for (const place of places) list.push(place);
        assert.deepEqual(
          places.map((_, i) => list.at(i)),
          places,
        );
      },
    ),
  );
});

test("figures of lengths are those of the sorted list", () => {
  assert.equal(lengthFigures(new Int32Array(0)), undefined);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 1 }), (lengths) => {
      const figures = lengthFigures(Int32Array.from(lengths)) ?? assert.fail();
      assert.equal(figures.shortest, Math.min(...lengths));
      assert.equal(figures.longest, Math.max(...lengths));
      for (const [percent, length] of figures.percentiles) {
        const share = (test: (each: number) => boolean): number =>
          lengths.filter(test).length / lengths.length;
        assert.ok(share((each) => each <= length) >= percent / 100);
        assert.ok(share((each) => each < length) < percent / 100);
      }
      let above = -1;
      let counted = 0;
      for (const { upTo, count } of figures.histogram) {
        assert.equal(count, lengths.filter((each) => each > above && each <= upTo).length);
        above = upTo;
        counted += count;
      }
      assert.equal(counted, lengths.length);
    }),
  );
});
