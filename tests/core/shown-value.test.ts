import assert from "node:assert/strict";
import { test } from "node:test";
import { shownValue } from "#lib/core/shown-value";

test("every value of a file can be shown, and no more than a line of it", () => {
  assert.equal(shownValue(12n), "12");
  assert.equal(
    shownValue([new Map([["a", 9007199254740993n]]), null]),
    '[{"a":9007199254740992},null]',
  );
  assert.equal(shownValue(undefined), "nothing");
  assert.equal(shownValue("x".repeat(1_000)).length, 103);
});
