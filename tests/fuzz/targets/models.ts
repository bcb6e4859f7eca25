import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { adapterFacts, isTied, positionKeys } from "#lib/models/facts";
import { knownLabels } from "#lib/models/classifier-checkpoint";
import { createModel } from "#lib/models/index";
import { modelConfigFor, readModelConfigText } from "#lib/checkpoint/model-config";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { readModelConfig } from "#run/model-directory";
import type { Target } from "#tests/fuzz/target";
import { all, copyFixture, fixture, inFile, readFixture, texts } from "./files.js";

const tasks = ["causal-lm", "sequence-classification", undefined] as const;

const configs = fs
  .readdirSync(fixture("models"))
  .filter((name) => fs.existsSync(fixture("models", name, "config.json")))
  .map((name) => readFixture("models", name, "config.json"));

const modelConfig: Target = {
  name: "models/config",
  share: 4,
  open: async (folder) => ({
    kind: "bytes",
    form: "json",
    corpus: configs,
    read: inFile(join(folder, "config.json"), async () => {
      const config = await readModelConfig(folder);
      const written = await readModelConfigText(folder);
      const changed = JSON.parse(modelConfigFor(written, "bfloat16")) as Record<string, unknown>;
      const own = "torch_dtype" in config && !("dtype" in config) ? "torch_dtype" : "dtype";
      assert.equal(changed[own], "bfloat16");
      isTied(config);
      positionKeys(config);
      adapterFacts(config);
      knownLabels(config);
      await all(tasks.map((task) => () => createModel(config, task === undefined ? {} : { task })));
    }),
  }),
};

const sample = "Hello wörld, it's 2024!\n\n  def f(x): return x\t\ud83d\ude00 \u0e01";
const messages = [
  { role: "system", content: "Be brief." },
  { role: "user", content: sample },
  { role: "assistant", content: "Yes." },
  { role: "user", content: "And f?" },
  { role: "assistant", content: "It is 3." },
];
const tools = [
  {
    type: "function",
    function: { name: "f", description: "d", parameters: { type: "object", properties: {} } },
  },
];
const call = {
  id: "call00001",
  type: "function",
  function: { name: "f", arguments: { a: [1, 2.5] } },
};
const messagesWithTools = [
  ...messages.slice(0, 4),
  { role: "assistant", content: "", tool_calls: [call] },
  { role: "tool", name: "f", content: "3", tool_call_id: "call00001" },
  { role: "assistant", content: "It is 3." },
];

/** What a run does with a tokenizer. */
async function useTokenizer(tokenizer: Tokenizer): Promise<void> {
  const ids = await tokenizer.encode(sample);
  await tokenizer.decode(ids);
  await tokenizer.encode(sample, { addSpecialTokens: true });
  await tokenizer.encodePair("a b", "c", 8);
  await tokenizer.encodeMarked([{ text: sample, spans: [{ start: 3, end: 9 }] }]);
  tokenizer.tokenOf(0);
  if (!tokenizer.hasChatTemplate) return;
  const template = tokenizer.requireChatTemplate();
  template.render(messages, { addGenerationPrompt: true });
  template.forTools(tools).render(messagesWithTools, { addGenerationPrompt: false, tools });
  if (template.marksAnswers) template.renderMarked(messages, { addGenerationPrompt: false });
}

/** A file of a directory that has a tokenizer. */
const tokenizerFile = (
  name: string,
  share: number,
  file: string,
  corpus: () => readonly Uint8Array[],
  options: { readonly form: "json" | "text"; readonly words?: readonly string[] },
): Target => ({
  name,
  share,
  async open(folder) {
    copyFixture(fixture("tok"), folder, ["tokenizer.json", "tokenizer_config.json"]);
    return {
      kind: "bytes",
      ...options,
      corpus: corpus(),
      read: inFile(join(folder, file), async () => useTokenizer(await loadTokenizer(folder))),
    };
  },
});

const templateFiles = fs.readdirSync(fixture("conversations", "templates"));
const jinjaWords = [
  "{% for m in messages %}",
  "{% for i in range(100000) %}",
  "{% endfor %}",
  "{% if m %}",
  "{% else %}",
  "{% endif %}",
  "{% set x = x ~ x %}",
  "{% set x = messages %}",
  "{% set ns.x = 1 %}",
  "{% macro f(a, b=1) %}",
  "{% endmacro %}",
  "{% call f(1) %}",
  "{% endcall %}",
  "{% filter upper %}",
  "{% generation %}",
  "{% endgeneration %}",
  "{{ f(f) }}",
  "{{ messages[0] }}",
  "{{ messages | tojson(indent=4) }}",
  "{{ 'a' * 1000000 }}",
  "{{ 10 ** 1000000 }}",
  "{{ 'x'.center(10000000) }}",
  "{{ '%1000000000d' | format(1) }}",
  "{{ x | join(x) }}",
  "{{ x | indent(10000000) }}",
  "{{ strftime_now('%Y') }}",
  "{{ raise_exception('no') }}",
  "{{ messages | map(attribute='content') | list }}",
  "{{ x.__class__ }}",
  "{{ namespace(x=1) }}",
  "{{ (1, 2)[::-1] }}",
  "{{ 'a'.split('') }}",
  "{{ 1 / 0 }}",
  "{{ 1 // 0 }}",
  "loop.index",
  " is defined ",
  " | default('') ",
  " not in ",
  "-%}",
  "{#",
];

const chatTemplate = tokenizerFile(
  "models/chat-template",
  6,
  "chat_template.jinja",
  () => templateFiles.map((name) => readFixture("conversations", "templates", name)),
  { form: "text", words: jinjaWords },
);

const addedTokens = (): string => {
  const { model } = JSON.parse(readFixture("tok", "tokenizer.json").toString("utf8")) as {
    readonly model: { readonly vocab: object };
  };
  const numTokens = Object.keys(model.vocab).length;
  return JSON.stringify({ "<a>": numTokens, "<b>": numTokens + 1 });
};
const specialTokens = JSON.stringify({
  bos_token: {
    content: "<s>",
    lstrip: false,
    normalized: false,
    rstrip: false,
    single_word: false,
  },
  eos_token: "</s>",
  additional_special_tokens: ["<x>", { content: "<y>", special: true }],
});

export const targets: readonly Target[] = [
  modelConfig,
  tokenizerFile(
    "models/tokenizer",
    6,
    "tokenizer.json",
    () => [
      readFixture("tok", "tokenizer.json"),
      ...["byte_level_bpe", "unigram", "wordpiece"].map((name) =>
        readFixture("tokenizers", name, "tokenizer.json"),
      ),
    ],
    { form: "json" },
  ),
  tokenizerFile(
    "models/tokenizer-config",
    2,
    "tokenizer_config.json",
    () => [
      readFixture("tok", "tokenizer_config.json"),
      readFixture("cases", "07-template-for-tools", "tokenizer_config.json"),
      readFixture("cases", "24-added-tokens-beside-tokenizer-json", "tokenizer_config.json"),
    ],
    { form: "json" },
  ),
  tokenizerFile("models/added-tokens", 1, "added_tokens.json", () => texts(addedTokens()), {
    form: "json",
  }),
  tokenizerFile(
    "models/special-tokens-map",
    1,
    "special_tokens_map.json",
    () => texts(specialTokens),
    {
      form: "json",
    },
  ),
  tokenizerFile(
    "models/generation-config",
    1,
    "generation_config.json",
    () => [readFixture("huggingface", "base_llama", "generation_config.json")],
    { form: "json" },
  ),
  chatTemplate,
];
