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
