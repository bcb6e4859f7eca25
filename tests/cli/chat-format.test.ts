import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { checkChatFormat } from "#run/chat-format";
import { createCaseJob } from "#tests/support/case-job";

// The case model's own template is ChatML.

const fakeEngine = join(packageRoot, "dist/tests/support/fake-engine.js");

async function train(t: TestContext, row: object, chat_template: string) {
  const job = await createCaseJob(undefined);
  t.after(job.remove);
  await writeFile(job.file("rows.jsonl"), `${JSON.stringify(row)}\n`.repeat(4));
  const file = await job.writeJob({
    ...{ model_name_or_path: "model", dataset: "rows.jsonl", validation_split: 0, max_length: 256 },
    ...{ per_device_train_batch_size: 2, max_steps: 1, save_strategy: "no", output_dir: "out" },
    ...{ chat_template, engine_module: fakeEngine },
  });
  return job.lockstep(["train-local", file]);
}

const chat = {
  messages: [
    { role: "user", content: "2 plus 2?" },
    { role: "assistant", content: "4" },
  ],
};

test("conversations of another format than the model's own are not trained on", async (t) => {
  const { code, stderr } = await train(t, chat, "llama3");
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^E_CONFIG_UNSUPPORTED: chat_template: "llama3" .*writes no <\|start_header_id\|>.*chat_template\.jinja/,
  );
  assert.equal((await train(t, chat, "chatml")).code, 0);
  assert.equal((await train(t, chat, "tokenizer_default")).code, 0);
});

test("instructions are conversations too where the model has a template; prompts are none", async (t) => {
  const { stderr } = await train(t, { instruction: "2 plus 2?", output: "4" }, "llama3");
  assert.match(stderr, /^E_CONFIG_UNSUPPORTED: chat_template: "llama3"/);
  assert.equal((await train(t, { prompt: "2 plus 2?", completion: "4" }, "llama3")).code, 0);
});

test("a name of no format is refused; the model's own is always met", () => {
  const writes = (text: string) => ({ hasChatTemplate: true, applyChatTemplate: () => text });
  for (const name of [null, "tokenizer_default", "tokenizer_default_fallback_chatml"]) {
    checkChatFormat(name, writes("anything"));
  }
  checkChatFormat("gemma", writes("<bos><start_of_turn>user\ntext<end_of_turn>"));
  checkChatFormat("llama3", { ...writes(""), hasChatTemplate: false });
  for (const name of ["jinja", "constructor", "ChatML"]) {
    assert.throws(() => checkChatFormat(name, writes("")), /it is none of chatml, /);
  }
});
