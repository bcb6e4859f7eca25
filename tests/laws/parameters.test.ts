import assert from "node:assert/strict";
import { test } from "node:test";
import { parametersKinds, parametersNames } from "#lib/parameters/index";
import { traceParameters, tracedParameters } from "#lib/tuning/parameters/index";

test("a way to choose parameters has a traced half exactly where it changes the forward pass", () => {
  const changing = parametersKinds.filter(({ changesForward }) => changesForward);
  assert.deepEqual(
    Object.keys(tracedParameters).sort(),
    changing.map(({ name }) => String(name)).sort(),
  );
});

test("names and keys of ways to choose parameters are their own", () => {
  const keys = parametersKinds.flatMap(({ fields }) => Object.keys(fields));
  assert.equal(new Set(keys).size, keys.length);
  assert.equal(new Set(parametersNames).size, parametersNames.length);
});

test("an engine refuses a way that it does not know", () => {
  assert.throws(() => traceParameters({ kind: "later" }), { code: "E_MODEL_UNSUPPORTED" });
  assert.deepEqual(traceParameters({ kind: "full" }).added, []);
});
