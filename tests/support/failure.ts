import assert from "node:assert/strict";
import { isLockstepError } from "#lib/core/errors/index";

/** Code and message of the catalogue's error with which an action fails; anything else fails the test. */
export function failure(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (isLockstepError(error)) return `${error.code}: ${error.message}`;
    throw error;
  }
  assert.fail("no error");
}

/** For assert.rejects: an error of the catalogue with this code. */
export const withCode =
  (code: string) =>
  (error: unknown): boolean => {
    assert.equal(isLockstepError(error) ? error.code : error, code);
    return true;
  };
