import assert from "node:assert/strict";
import { test } from "node:test";
import { configKeys } from "#lib/config/index";
import { listSources, readSource } from "#tests/support/source-files";

/** Words of other files and programs that look like a key of ours. */
const others = new Set([
  // Fields of a model's or an adapter's files, and parts of their names.
  ...["base_model_name_or_path", "target_modules", "max_position_embeddings", "n_positions"],
  ...["adapter_config", "adapter_model", "tokenizer_config", "chat_template", "dataset_info"],
  ...["im_end", "initializer_range", "model_type"],
  // Python's.
  ...["merge_and_unload", "from_pretrained", "save_pretrained", "to_json", "to_parquet"],
]);

const snakeWord = /(?<![\w.$/])[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b/g;

/** Words of texts between quotes: what a person reads. */
function wordsOfTexts(source: string): string[] {
  const texts = source.match(/"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g) ?? [];
  return texts.flatMap((text) => text.match(snakeWord) ?? []);
}

test("a key that an error's message or advice names exists", () => {
  const keys = new Set<string>(configKeys);
  const catalogue = listSources().filter((path) => path.startsWith("lib/core/errors/"));
  const named = catalogue.flatMap((path) =>
    wordsOfTexts(readSource(path)).map((word) => `${path}: ${word}`),
  );
  assert.ok(named.length > 10);
  assert.deepEqual(
    named.filter((line) => {
      const word = line.slice(line.indexOf(": ") + 2);
      return !keys.has(word) && !others.has(word);
    }),
    [],
  );
});

test("a key that the page of other tools' keys sends to exists", () => {
  const keys = new Set<string>(configKeys);
  const reasons = [...readSource("docs/keys-of-other-tools.md").matchAll(/^\| `.*` \| (.*) \|$/gm)];
  assert.ok(reasons.length > 100);
  const targets = reasons.flatMap(([, text = ""]) =>
    [...text.matchAll(/read as `(\w+)`/g)].map(([, key = ""]) => key),
  );
  assert.deepEqual(
    targets.filter((key) => !keys.has(key)),
    [],
  );
});
