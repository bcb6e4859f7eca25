import assert from "node:assert/strict";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { importGguf } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { type ProgramResult, runProgram } from "#tests/support/run-program";

const generate = (args: readonly string[]): Promise<ProgramResult> =>
  runProgram(process.execPath, [join(packageRoot, "bin/lockstep"), "generate", ...args]);

interface Line {
  readonly prompt: string;
  readonly text: string;
  readonly tokens: readonly number[];
  readonly finish: string;
}

const linesOf = ({ stdout }: ProgramResult): Line[] =>
  stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);

test("generate continues prompts, chats, stops and samples by a seed", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-generate-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const fixtures = join(packageRoot, "tests/fixtures");
  await importGguf(join(fixtures, "tiny-gguf/tiny.gguf"), directory, () => {}, { overwrite: true });
  await cp(join(fixtures, "tok/chat_template.jinja"), join(directory, "chat_template.jinja"));

  const two = await generate([
    ...[directory, "--prompt", "hello there", "--prompt", "a cat"],
    ...["--max_new_tokens", "5", "--json"],
  ]);
  assert.equal(two.code, 0, two.stderr);
  const rows = linesOf(two);
  assert.deepEqual(
    rows.map(({ prompt, tokens }) => [prompt, tokens.length]),
    [
      ["hello there", 5],
      ["a cat", 5],
    ],
  );
  const one = await generate([
    ...[directory, "--prompt", "a cat", "--max-new-tokens", "5", "--json", "--temperature", "0"],
  ]);
  assert.deepEqual(linesOf(one), [rows[1]]);

  const sampled = ["--chat", "--prompt", "a cat", "--temperature", "1.5", "--top-k", "30"];
  const draws = [];
  for (const seed of ["1", "1", "2"]) {
    const drawn = await generate([directory, ...sampled, "--json", "--seed", seed]);
    assert.equal(drawn.code, 0, drawn.stderr);
    draws.push(linesOf(drawn)[0]?.tokens);
  }
  assert.deepEqual(draws[0], draws[1]);
  assert.notDeepEqual(draws[0], draws[2]);

  await writeFile(join(directory, "generation_config.json"), '{"num_beams": 3}');
  const beams = await generate([directory, "--prompt", "a cat"]);
  assert.equal(beams.code, 1);
  assert.match(beams.stderr, /E_GENERATION_CONFIG: .*num_beams/);
});

test("a command line that cannot be read exits 2", async () => {
  const directory = modelFixtureDirectory("llama-gqa-untied");
  for (const args of [
    [],
    [directory],
    [directory, "--prompt", "a", "--top-p", "2"],
    [directory, "--prompt", "a", "--max-new-tokens", "0"],
    [directory, "--prompt", "a", "--system", "b"],
    [directory, "--prompt", "a", "--stop", ""],
    [directory, "--wat"],
  ]) {
    const { code, stderr } = await generate(args);
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, /E_USAGE: lockstep generate: /);
  }
});
