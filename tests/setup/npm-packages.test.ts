import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { packageRoot } from "#lib/core/paths";

type Packages = Record<string, object>;

const { matchesLockFile } = (await import(join(packageRoot, "scripts/setup/npm-packages.mjs"))) as {
  matchesLockFile(root: string): boolean;
};

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "lockstep-npm-"));
  mkdirSync(join(root, "node_modules"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function matches(wanted: Packages, installed: Packages): boolean {
  writeFileSync(
    join(root, "package-lock.json"),
    JSON.stringify({ packages: { "": {}, ...wanted } }),
  );
  writeFileSync(
    join(root, "node_modules/.package-lock.json"),
    JSON.stringify({ packages: installed }),
  );
  return matchesLockFile(root);
}

const one = { version: "1.0.0", integrity: "sha512-one" };

test("the same packages match, whatever else the two files say of them", () => {
  assert.equal(
    matches({ "node_modules/a": { ...one, dev: true } }, { "node_modules/a": one }),
    true,
  );
});

test("another version, other contents, a missing and a superfluous package do not", () => {
  const wanted = { "node_modules/a": one };
  assert.equal(matches(wanted, { "node_modules/a": { ...one, version: "1.0.1" } }), false);
  assert.equal(matches(wanted, { "node_modules/a": { ...one, integrity: "sha512-two" } }), false);
  assert.equal(matches(wanted, {}), false);
  assert.equal(matches(wanted, { "node_modules/a": one, "node_modules/b": one }), false);
});

test("an optional package of another platform may be absent, any other optional one may not", () => {
  assert.equal(matches({ "node_modules/a": { ...one, optional: true, os: ["aix"] } }, {}), true);
  assert.equal(matches({ "node_modules/a": { ...one, optional: true } }, {}), false);
});

test("without npm's record, which it writes last, nothing is installed", () => {
  writeFileSync(join(root, "package-lock.json"), JSON.stringify({ packages: { "": {} } }));
  assert.equal(matchesLockFile(root), false);
});
