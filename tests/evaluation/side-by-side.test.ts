/** How many parts of a call TensorFlow is given to compute side by side. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { partsSideBySide, setTextThreads } from "#lib/evaluation/side-by-side";

test("there are as many parts as TensorFlow runs nodes side by side, and at most two", () => {
  const parts = (value: string): number => partsSideBySide({ TF_NUM_INTEROP_THREADS: value });
  assert.deepEqual(["1", "2", "8"].map(parts), [1, 2, 2]);
  for (const env of [{}, { TF_NUM_INTEROP_THREADS: "0" }]) {
    assert.ok([1, 2].includes(partsSideBySide(env)), "TensorFlow's own choice is all processors");
  }
});

test("threads of a reader of texts: one for each part, the rest within its products", () => {
  const before = { ...process.env };
  const threads = (count: number) => {
    setTextThreads(count);
    const { TF_NUM_INTEROP_THREADS: parts, TF_NUM_INTRAOP_THREADS: within } = process.env;
    return [parts, within, partsSideBySide(process.env)];
  };
  try {
    assert.deepEqual(threads(1), ["1", "1", 1]);
    assert.deepEqual(threads(2), ["2", "1", 2]);
    assert.deepEqual(threads(5), ["2", "3", 2]);
  } finally {
    process.env = before;
  }
});
