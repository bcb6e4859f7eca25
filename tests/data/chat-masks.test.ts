import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { markTokens, renderConversation } from "#lib/data/encode-example";
import type { ConversationExample } from "#lib/data/formats/index";
import { type ChatMessage, loadTokenizer, type Tokenizer } from "#lib/data/index";

interface Fixture {
  readonly templates: Readonly<Record<string, string>>;
  readonly unmarked: Readonly<Record<string, string>>;
  readonly cases: readonly {
    readonly template: string;
    readonly messages: readonly ChatMessage[];
    readonly text: string;
    readonly ids: readonly number[];
    readonly mask: readonly number[];
  }[];
}

const fixtures = join(packageRoot, "tests/fixtures");
const fixture = JSON.parse(await readFile(join(fixtures, "chat_masks.json"), "utf8")) as Fixture;
const directory = await mkdtemp(join(tmpdir(), "lockstep-chat-masks-"));
after(() => rm(directory, { recursive: true }));

let numTokenizers = 0;
/** The tokenizer of tests/fixtures/tok with another chat template, and other settings. */
async function tokenizerWith(template: string, config: object = {}): Promise<Tokenizer> {
  const folder = join(directory, String(numTokenizers++));
  await mkdir(folder);
  const from = join(fixtures, "tok");
  await copyFile(join(from, "tokenizer.json"), join(folder, "tokenizer.json"));
  const settings = JSON.parse(
    await readFile(join(from, "tokenizer_config.json"), "utf8"),
  ) as object;
  await writeFile(
    join(folder, "tokenizer_config.json"),
    JSON.stringify({ ...settings, ...config }),
  );
  await writeFile(join(folder, "chat_template.jinja"), template);
  return loadTokenizer(folder);
}

function conversation(
  messages: readonly ChatMessage[],
  isLearnt = messages.map(({ role }) => role === "assistant"),
): ConversationExample {
  return { kind: "conversation", messages, isLearnt, tools: null };
}

async function learntTexts(tokenizer: Tokenizer, example: ConversationExample): Promise<string[]> {
  const texts: string[] = [];
  for (const rendered of renderConversation(example, tokenizer)) {
    const [encoded] = await tokenizer.encodeMarked([rendered]);
    assert.ok(encoded !== undefined);
    const { tokens: marked } = markTokens(
      { ...rendered, place: "row", kind: "conversation" },
      encoded,
      tokenizer,
    );
    const all = marked.map((value) => (value < 0 ? ~value : value));
    assert.deepEqual([...all], [...(await tokenizer.encode(rendered.text))]);
    for (let start = 0; start < marked.length; start++) {
      if ((marked[start] ?? -1) < 0) continue;
      let end = start;
      while (end < marked.length && (marked[end] ?? -1) >= 0) end++;
      texts.push(await tokenizer.decode(marked.subarray(start, end), { skipSpecialTokens: false }));
      start = end;
    }
  }
  return texts;
}

test("texts, ids and masks of answers equal those of transformers", async () => {
  let numAnswers = 0;
  for (const [name, template] of Object.entries(fixture.templates)) {
    const tokenizer = await tokenizerWith(template);
    assert.equal(tokenizer.chatTemplate?.marksAnswers, true);
    for (const { messages, text, ids, mask } of fixture.cases.filter((c) => c.template === name)) {
      const marked = tokenizer.chatTemplate.renderMarked(messages, { addGenerationPrompt: false });
      assert.equal(marked.text, text);
      assert.equal(tokenizer.applyChatTemplate(messages), text);
      const [encoded] = await tokenizer.encodeMarked([marked]);
      assert.deepEqual([...(encoded?.ids ?? [])], ids);
      const found = ids.map((_, i) =>
        encoded?.spans.some(({ start, end }) => i >= start && i < end) === true ? 1 : 0,
      );
      assert.deepEqual(found, mask, `${name}: ${text}`);
      numAnswers += encoded?.spans.length ?? 0;
    }
  }
  assert.equal(numAnswers, 4 * 7);
});

test("without marks the answers are what each one adds to the prompt before it", async () => {
  for (const [name, template] of Object.entries(fixture.unmarked)) {
    const tokenizer = await tokenizerWith(template);
    assert.equal(tokenizer.chatTemplate?.marksAnswers, false);
    for (const { messages, text, ids, mask } of fixture.cases.filter((c) => c.template === name)) {
      const rendered = renderConversation(conversation(messages), tokenizer);
      if (!mask.includes(1)) continue;
      assert.equal(rendered.length, 1);
      assert.equal(rendered[0]?.text, text);
      const [encoded] = await tokenizer.encodeMarked(rendered);
      const found = ids.map((_, i) =>
        encoded?.spans.some(({ start, end }) => i >= start && i < end) === true ? 1 : 0,
      );
      assert.deepEqual(found, mask, `${name}: ${text}`);
    }
  }
});

test("a weight of 0 leaves an answer out, marked or not", async () => {
  const messages = [
    { role: "user", content: "a" },
    { role: "assistant", content: "first" },
    { role: "user", content: "b" },
    { role: "assistant", content: "second" },
  ];
  for (const template of [fixture.templates.inline, fixture.unmarked.inline]) {
    const tokenizer = await tokenizerWith(template ?? "");
    const texts = await learntTexts(tokenizer, conversation(messages, [false, false, false, true]));
    assert.deepEqual(texts, ["second<|im_end|>"]);
  }
});

test("the end token is learnt, also where it stands behind the mark or is the padding token", async () => {
  const messages = [
    { role: "user", content: "hello" },
    { role: "assistant", content: "the answer" },
  ];
  const behind = await tokenizerWith(fixture.templates.end_outside ?? "");
  assert.deepEqual(await learntTexts(behind, conversation(messages)), ["the answer<|im_end|>"]);
  const padIsEos = await tokenizerWith(fixture.templates.inline ?? "", { pad_token: "<|im_end|>" });
  assert.deepEqual(await learntTexts(padIsEos, conversation(messages)), ["the answer<|im_end|>"]);
});

test("a mark that ends with a character of several tokens holds all of them", async () => {
  const tokenizer = await tokenizerWith(fixture.templates.end_outside ?? "");
  const answer = "the answer 🙂";
  const [plain] = await tokenizer.encodeMany(["🙂"]);
  assert.ok((plain?.length ?? 0) > 1);
  const messages = [
    { role: "user", content: "hello" },
    { role: "assistant", content: answer },
  ];
  assert.deepEqual(await learntTexts(tokenizer, conversation(messages)), [`${answer}<|im_end|>`]);
});

test("a template without an end token after its answers is refused", async () => {
  const endless = await tokenizerWith(
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}" +
      "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
  );
  const messages = [
    { role: "user", content: "hello" },
    { role: "assistant", content: "the answer" },
  ];
  await assert.rejects(learntTexts(endless, conversation(messages)), (error) => {
    assert.ok(isLockstepError(error));
    return error.code === "E_DATA_NO_END_TOKEN";
  });
});

test("a template that begins twice is refused", async () => {
  const twice = await tokenizerWith(`{{ bos_token + bos_token }}${fixture.templates.inline}`);
  const messages = [
    { role: "user", content: "hello" },
    { role: "assistant", content: "the answer" },
  ];
  await assert.rejects(learntTexts(twice, conversation(messages)), (error) => {
    assert.ok(isLockstepError(error));
    return error.code === "E_CHAT_TEMPLATE_SECOND_BOS";
  });
});

test("where earlier answers are written in another way, each is learnt as the model met it", async () => {
  // As Qwen3: thoughts are kept in the last answer alone.
  const thinking = await tokenizerWith(
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}" +
      "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}" +
      "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}" +
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  );
  const messages = [
    { role: "user", content: "a" },
    { role: "assistant", content: "<think>why</think>first" },
    { role: "user", content: "b" },
    { role: "assistant", content: "<think>how</think>second" },
  ];
  const rendered = renderConversation(conversation(messages), thinking);
  assert.deepEqual(
    rendered.map(({ text }) => text),
    [
      "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>why</think>first<|im_end|>\n",
      "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nfirst<|im_end|>\n" +
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n<think>how</think>second<|im_end|>\n",
    ],
  );
  assert.deepEqual(await learntTexts(thinking, conversation(messages)), [
    "<think>why</think>first<|im_end|>",
    "<think>how</think>second<|im_end|>",
  ]);
});
