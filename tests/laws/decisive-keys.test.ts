import assert from "node:assert/strict";
import { test } from "node:test";
import { configKeys, dataKeys, decisiveKeys, freeKeys } from "#lib/config/index";

test("of every key it is written down whether another value makes it another run", () => {
  const listed = [...decisiveKeys, ...dataKeys, ...freeKeys];
  assert.deepEqual([...listed].sort(), [...configKeys].sort());
  assert.equal(new Set(listed).size, listed.length);
});
