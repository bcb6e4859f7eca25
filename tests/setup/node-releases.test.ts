import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { runProgram } from "#tests/support/run-program";

const { supportsNode, supportedNode } = createRequire(import.meta.url)(
  join(packageRoot, "bin/supported-node.cjs"),
) as { supportsNode(version: string): boolean; supportedNode(): string };
const { NODE_RELEASES } = (await import(join(packageRoot, "scripts/setup/node-releases.mjs"))) as {
  NODE_RELEASES: Record<string, Record<string, { version: string; integrity: string }>>;
};
const directory = await mkdtemp(join(tmpdir(), "lockstep-node-"));
after(() => rm(directory, { recursive: true }));

const withNode = (...args: string[]) =>
  runProgram("env", [
    `LOCKSTEP_CACHE=${directory}`,
    process.execPath,
    join(packageRoot, "scripts/with-node.mjs"),
    ...args,
  ]);

test("the releases of package.json's engines are accepted, those between and beyond are not", () => {
  const accepted = ["20.15.0", "20.20.2", "22.2.0", "22.23.5", "24.0.0", "24.22.3"];
  const refused = ["18.20.8", "20.14.0", "21.7.3", "22.1.0", "23.11.1", "25.0.0", "26.12.1"];
  for (const version of accepted) assert.equal(supportsNode(`v${version}`), true, version);
  for (const version of refused) assert.equal(supportsNode(`v${version}`), false, version);
  assert.equal(supportsNode(process.version), true);
  assert.equal(supportedNode(), "Node 20 (from 20.15), 22 (from 22.2) or 24");
});

test("tests have a release of each major version that is accepted", async () => {
  const { engines } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8")) as {
    engines: { node: string };
  };
  const majors = [...engines.node.matchAll(/>=(\d+)/g)].map(([, major]) => major);
  for (const releases of Object.values(NODE_RELEASES)) {
    assert.deepEqual(Object.keys(releases), majors);
    for (const [major, { version, integrity }] of Object.entries(releases)) {
      assert.ok(version.startsWith(`${major}.`) && supportsNode(version), version);
      assert.match(integrity, /^sha512-[\w+/]{86}==$/);
    }
  }
});

test("lockstep and the set-up name the releases that they accept to any other", async () => {
  const other = join(directory, "other.cjs");
  await writeFile(other, 'Object.defineProperty(process, "version", { value: "v25.1.0" });\n');
  for (const [file, words] of [
    ["bin/lockstep", ["--help"]],
    ["scripts/setup.mjs", []],
  ] as const) {
    const args = ["--require", other, join(packageRoot, file), ...words];
    const { code, stdout, stderr } = await runProgram(process.execPath, args);
    assert.equal(code, 1, stdout);
    assert.ok(stderr.includes("v25.1.0") && stderr.includes(supportedNode()), stderr);
    assert.equal(stdout, "");
  }
});

test("with-node puts the release first in the path and ends as the command does", async () => {
  const bin = join(directory, "node/99.1.0/package/bin");
  await mkdir(bin, { recursive: true });
  await writeFile(join(bin, "node"), "#!/bin/sh\necho v99.1.0\n");
  await chmod(join(bin, "node"), 0o755);
  const ended = await withNode("99.1.0", "sh", "-c", "node --version; exit 3");
  assert.deepEqual(ended, { code: 3, stdout: "v99.1.0\n", stderr: "" });
  const killed = await withNode("99.1.0", "sh", "-c", "kill -9 $$");
  assert.equal(killed.code, 128 + 9);
  // A cache that was filled with something else is not trusted.
  await mkdir(join(directory, "node/98.0.0/package"), { recursive: true });
  await runProgram("cp", ["-r", bin, join(directory, "node/98.0.0/package/bin")]);
  const wrong = await withNode("98.0.0", "true");
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /says it is v99\.1\.0/);
});

test("with-node refuses versions that name no release", async () => {
  for (const version of ["23", "latest", "v24", "24.1", "../24.0.0"]) {
    const { code, stderr } = await withNode(version, "true");
    assert.equal(code, 1);
    assert.match(
      stderr,
      new RegExp(`no Node ${version.replaceAll(".", "\\.")}: give one of 20, 22, 24`),
    );
  }
  const { code, stderr } = await withNode();
  assert.deepEqual([code, stderr.slice(0, 17)], [1, "with-node: usage:"]);
});
