import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { type ProgramResult, runProgram } from "#tests/support/run-program";

const name = "qwen3-qknorm";

const verifyModel = (args: readonly string[]): Promise<ProgramResult> =>
  runProgram(process.execPath, [join(packageRoot, "bin/lockstep"), "verify-model", ...args]);

/** A copy of the fixture that a test may damage. */
async function copyOfFixture(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-verify-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  await cp(modelFixtureDirectory(name), directory, { recursive: true });
  return directory;
}

/** Negates one element of a float32 tensor in a safetensors file. */
async function flip(file: string, tensor: string, index: number): Promise<void> {
  const bytes = await readFile(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<
    string,
    { data_offsets: [number, number] } | undefined
  >;
  const [start] = header[tensor]?.data_offsets ?? assert.fail(`no tensor ${tensor}`);
  const at = 8 + headerBytes + start + 4 * index;
  bytes.writeFloatLE(-bytes.readFloatLE(at), at);
  await writeFile(file, bytes);
}

test("a model whose numbers are transformers' passes, with a table for a person", async () => {
  const { code, stdout } = await verifyModel([modelFixtureDirectory(name)]);
  assert.equal(code, 0, stdout);
  assert.match(stdout, /qwen3, causal-lm, 24 weights, 3 rows of 17 tokens/);
  assert.match(stdout, /^ {2}logits +\d\.\de-[67] /m);
  assert.match(stdout, /greedy continuation: 12 of 12 tokens equal/);
  assert.match(stdout, /^PASSED: at most 1e-4/m);
});

test("one weight with the wrong sign fails", async (t) => {
  const directory = await copyOfFixture(t);
  await flip(join(directory, "model.safetensors"), "model.layers.1.mlp.up_proj.weight", 100);
  const { code, stdout } = await verifyModel([directory]);
  assert.equal(code, 1, stdout);
  assert.match(stdout, /^FAILED: \d+ of 26 beyond 1e-4, worst: grad\.model\.\S+ differs by/m);
});

test("a gradient that is off is named, and a wider tolerance accepts it", async (t) => {
  const directory = await copyOfFixture(t);
  const tensor = "grad.model.layers.0.self_attn.k_norm.weight";
  await flip(join(directory, "expected.safetensors"), tensor, 3);
  const original = modelFixtureDirectory(name);
  const { code, stdout } = await verifyModel([original, "--case", directory]);
  assert.equal(code, 1, stdout);
  assert.match(
    stdout,
    /^FAILED: 1 of 26 beyond 1e-4, worst: grad\.model\.layers\.0\.self_attn\.k_norm/m,
  );
  const wide = await verifyModel([original, "--case", directory, "--rtol", "3", "--all"]);
  assert.equal(wide.code, 0, wide.stdout);
  assert.equal(wide.stdout.match(/^ {2}grad\./gm)?.length, 24);
});

test("a command line that cannot be read exits 2, a directory without a case 1", async (t) => {
  for (const args of [[], ["a", "b"], [modelFixtureDirectory(name), "--rtol", "x"], ["--wat"]]) {
    const { code, stderr } = await verifyModel(args);
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, /E_USAGE: lockstep verify-model: /);
  }
  const directory = await copyOfFixture(t);
  await rm(join(directory, "case.json"));
  const { code, stderr } = await verifyModel([directory]);
  assert.equal(code, 1);
  assert.match(stderr, /E_FILE_NOT_FOUND/);
});
