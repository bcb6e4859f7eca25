import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { hasTokenizer, loadTokenizer } from "#lib/data/index";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-tokenizer-"));
});
after(() => rm(directory, { recursive: true, force: true }));

/** What a directory with these files and no tokenizer.json is told. */
async function problemOf(name: string, files: readonly string[]): Promise<string> {
  const place = join(directory, name);
  await mkdir(place);
  for (const file of files) await writeFile(join(place, file), "");
  assert.equal(
    hasTokenizer(place),
    files.some((file) => !file.startsWith("tokenizer_config")),
  );
  let message = "";
  await assert.rejects(loadTokenizer(place), (error) => {
    assert.ok(isLockstepError(error) && error.code === "E_TOKENIZER_MISSING");
    message = error.message;
    return true;
  });
  assert.ok(message.startsWith(`${place} has no tokenizer.json, `), message);
  return message;
}

test("the files of a slow tokenizer are named, with the line of Python that makes tokenizer.json", async () => {
  const cases: readonly (readonly [name: string, files: string[]])[] = [
    ["bpe", ["vocab.json", "merges.txt", "tokenizer_config.json"]],
    ["word pieces", ["vocab.txt"]],
    ["it's", ["tokenizer.model"]],
  ];
  for (const [name, files] of cases) {
    const message = await problemOf(name, files);
    const named = files.filter((file) => file !== "tokenizer_config.json").join(" and ");
    assert.ok(message.includes(`slow tokenizer, ${named}, from which`), message);
    assert.match(message, /: python3 -c "from transformers import AutoTokenizer as T; /);
    assert.equal(message.includes("with the package sentencepiece"), name === "it's");
  }
});

test("without any of them, or with half, it says to copy the tokenizer", async () => {
  assert.match(await problemOf("none", ["tokenizer_config.json"]), /vocab\.txt.*; copy the tok/);
  assert.match(await problemOf("half", ["merges.txt"]), /, only merges\.txt; copy the tokenizer's/);
  await assert.rejects(loadTokenizer(join(directory, "nowhere")), { code: "E_FILE_NOT_FOUND" });
});
