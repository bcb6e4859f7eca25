import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { copyTokenizer } from "#lib/checkpoint/model-directory";
import { isLockstepError } from "#lib/core/errors/index";
import { loadTokenizer } from "#lib/data/index";
import { writeCaseModel } from "#tests/support/case-job";

const directory = await mkdtemp(join(tmpdir(), "lockstep-added-tokens-"));
after(() => rm(directory, { recursive: true }));

let numModels = 0;
/** The tokenizer of the cases, of 260 tokens, with files beside it. */
async function tokenizerWith(files: Readonly<Record<string, unknown>>): Promise<string> {
  const path = join(directory, String(numModels++));
  await writeCaseModel(path);
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(path, name), JSON.stringify(content));
  }
  return path;
}

async function refusal(files: Readonly<Record<string, unknown>>): Promise<string> {
  let message = "";
  await assert.rejects(loadTokenizer(await tokenizerWith(files)), (error) => {
    assert.ok(isLockstepError(error) && error.code === "E_TOKENIZER_INVALID", String(error));
    message = error.message;
    return true;
  });
  return message;
}

const decoder = (tokens: Readonly<Record<string, string>>): object => ({
  eos_token: "<|im_end|>",
  added_tokens_decoder: Object.fromEntries(
    Object.entries(tokens).map(([id, content]) => [id, { content, special: true }]),
  ),
});

test("a token whose id is not the one that the vocabulary gives it is refused by name", async () => {
  // A gap, a place that another token has, and another place of a token that is there.
  const gap = await refusal({ "added_tokens.json": { "<|turn|>": 260, "<|far|>": 300 } });
  assert.match(gap, /added_tokens\.json .*"<\|far\|>" the id 300, .* 261 is its id/);
  const taken = await refusal({ "tokenizer_config.json": decoder({ 7: "<|turn|>" }) });
  assert.match(taken, /tokenizer_config\.json .*"<\|turn\|>" the id 7, .* 260 is its id/);
  const moved = await refusal({ "tokenizer_config.json": decoder({ 260: "<|im_end|>" }) });
  assert.match(moved, /"<\|im_end\|>" the id 260, .* 2 is its id/);
});

test("a token that one file names and the file that counts leaves out is refused by name", async () => {
  const message = await refusal({
    "tokenizer_config.json": decoder({ 260: "<|turn|>" }),
    "added_tokens.json": { "<|turn|>": 260, "<|turn_end|>": 261 },
  });
  assert.match(message, /added_tokens\.json .*"<\|turn_end\|>".*leaves out/);
});

test("files that name no tokens, and tokens in pieces, are refused", async () => {
  for (const id of ["x", -1, 1.5, null]) {
    assert.match(await refusal({ "added_tokens.json": { "<|turn|>": id } }), /not a token with/);
  }
  assert.match(
    await refusal({ "tokenizer_config.json": { added_tokens_decoder: { 260: "<|turn|>" } } }),
    /"260" is "<\|turn\|>", not a token/,
  );
  assert.match(
    await refusal({ "tokenizer_config.json": { split_special_tokens: true } }),
    /split_special_tokens/,
  );
});

test("a token that only has a role separates no documents and is no padding of the model", async () => {
  const path = await tokenizerWith({
    "tokenizer_config.json": { eos_token: "<|im_end|>", pad_token: "<pad>" },
  });
  const tokenizer = await loadTokenizer(path);
  assert.equal(tokenizer.padTokenId, 260);
  assert.equal(tokenizer.documentSeparatorTokenId, 0);
});

test("what is saved is what the user had", async () => {
  const files = {
    "tokenizer_config.json": decoder({ 260: "<|turn|>" }),
    "added_tokens.json": { "<|turn|>": 260 },
  };
  const path = await tokenizerWith(files);
  const saved = await mkdtemp(join(directory, "saved-"));
  await copyTokenizer(path, saved);
  for (const name of ["tokenizer.json", ...Object.keys(files)]) {
    assert.deepEqual(await readFile(join(saved, name)), await readFile(join(path, name)));
  }
  assert.equal((await loadTokenizer(saved)).tokenId("<|turn|>"), 260);
});
