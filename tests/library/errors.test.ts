import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";

test("an error of another copy of the package is recognised, and others are not", async () => {
  const url = new URL("../../lib/core/errors/index.js?another-copy", import.meta.url).href;
  const copy = (await import(url)) as {
    LockstepError: typeof LockstepError;
    isLockstepError: typeof isLockstepError;
  };
  assert.notEqual(copy.LockstepError, LockstepError);
  const facts = { file: "a", what: "configuration" };
  const ours = new LockstepError("E_FILE_NOT_FOUND", facts);
  const theirs = new copy.LockstepError("E_FILE_NOT_FOUND", facts);
  assert.ok(!(theirs instanceof LockstepError));
  for (const error of [ours, theirs]) {
    assert.ok(isLockstepError(error));
    assert.ok(copy.isLockstepError(error));
  }
  for (const other of [new Error("a"), { code: "E_FILE_NOT_FOUND" }, null, undefined, "text"]) {
    assert.ok(!isLockstepError(other));
  }
});
