import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { checkSpecialTokens } from "#run/special-tokens";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer } from "#lib/data/index";

const directory = join(packageRoot, "tests/fixtures/tok");

test("special tokens are the tokenizer's own, or refused by name", async () => {
  const tokenizer = await loadTokenizer(directory);
  const own = (id: number | null): string => tokenizer.specialTokens.get(id ?? -1) ?? "";
  const eos = own(tokenizer.eosTokenId);
  const [other] = [...tokenizer.specialTokens.values()].filter((token) => token !== eos);
  assert.ok(eos !== "" && other !== undefined);
  // Padding is masked, so any token of the vocabulary does; so does a list, and an empty line.
  checkSpecialTokens(
    { eos_token: eos, pad_token: other, unk_token: null, additional_special_tokens: [eos, other] },
    tokenizer,
  );
  checkSpecialTokens(null, tokenizer);
  assert.throws(() => checkSpecialTokens({ eos_token: other }, tokenizer), {
    code: "E_CONFIG_UNSUPPORTED",
    message: new RegExp(`special_tokens\\.eos_token: .* has ${eos.replaceAll("|", "\\|")}, which`),
  });
  for (const value of ["<|new|>", [eos, "<|new|>"]]) {
    assert.throws(() => checkSpecialTokens({ pad_token: value }, tokenizer), {
      code: "E_CONFIG_UNSUPPORTED",
      message: /special_tokens\.pad_token: "<\|new\|>" .*vocabulary keeps its size/,
    });
  }
});
