import assert from "node:assert/strict";
import { test } from "node:test";
import { difference, keptRows, parseCase } from "#lib/evaluation/verify/index";

test("a value that is not a number is never close", () => {
  assert.equal(difference("x", [Number.NaN, 1], [1, 1]).relative, Number.POSITIVE_INFINITY);
  assert.equal(difference("x", [1], [1, 1]).relative, Number.POSITIVE_INFINITY);
  assert.equal(difference("x", [0, 0], [0, 0]).relative, 0);
  assert.equal(difference("x", [3, 4], [0, 0]).relative, Number.POSITIVE_INFINITY);
  assert.equal(difference("x", [1e-9], [2e-9], 1).relative, 1e-9);
});

test("rows at masked positions do not count", () => {
  assert.deepEqual(
    [...keptRows(Float32Array.from([1, 2, 3, 4, 5, 6]), Int32Array.from([1, 0, 1]))],
    [1, 2, 5, 6],
  );
});

test("a case that is not one is refused with what is wrong", () => {
  const good = {
    input_ids: [[3, 4]],
    attention_mask: [[1, 1]],
    labels: [[3, 4]],
    loss: 1,
    greedy: { prompt: [3], continuation: [4] },
  };
  assert.equal(parseCase("case.json", good).rowLength, 2);
  for (const [change, problem] of [
    [{ input_ids: [[3, 4], [5]] }, /input_ids/],
    [{ input_ids: [[3, 4.5]] }, /whole numbers/],
    [{ attention_mask: [[1]] }, /differ in shape/],
    [{ labels: ["a"] }, /labels/],
    [{ labels: [0, 1] }, /differ in rows/],
    [{ loss: null }, /loss/],
    [{ greedy: { prompt: [] } }, /greedy/],
  ] as const) {
    assert.throws(() => parseCase("case.json", { ...good, ...change }), {
      code: "E_CASE_INVALID",
      message: problem,
    });
  }
});
