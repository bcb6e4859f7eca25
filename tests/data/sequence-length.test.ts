import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { checkSequenceLength } from "#lib/data/index";

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
