import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { prepareRun } from "#run/prepare";
import { logLine } from "#cli/progress/log-lines";
import { emptyView } from "#cli/progress/run-view";
import { renderSample } from "#cli/progress/summary";
import { plainPalette } from "#lib/core/terminal-text";
import { loadConfig } from "#lib/config/index";
import { packageRoot } from "#lib/core/paths";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// The sample of a run on chats is a user's question; that of a run on texts is text.

const question = "the state of the union";
let job: TinyJob;
before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ sample_prompt: question, max_length: 64, max_steps: 1, workers: 1 },
  });
  await writeFile(
    join(job.directory, "model/chat_template.jinja"),
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}" +
      "{% endif %} {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
  );
});
after(() => job.remove());

const rows = {
  messages: (i: number) => ({
    messages: [
      { role: "user", content: `peace ${i}` },
      { role: "assistant", content: "law" },
    ],
  }),
  sharegpt: (i: number) => ({
    conversations: [
      { from: "human", value: `peace ${i}` },
      { from: "gpt", value: "law" },
    ],
  }),
  alpaca: (i: number) => ({ instruction: `peace ${i}`, output: "law" }),
  "prompt-completion": (i: number) => ({ prompt: `peace ${i} `, completion: "law" }),
  text: (i: number) => ({ text: `peace ${i} is law` }),
};

async function fileOf(format: keyof typeof rows): Promise<string> {
  const file = join(job.directory, `${format}.jsonl`);
  const lines = Array.from({ length: 24 }, (_, i) => JSON.stringify(rows[format](i)));
  await writeFile(file, `${lines.join("\n")}\n`);
  return file;
}

for (const format of Object.keys(rows) as (keyof typeof rows)[]) {
  const isChat = format !== "text" && format !== "prompt-completion";
  test(`${format}: sample_prompt is ${isChat ? "a user's message" : "text"}`, async () => {
    const file = await fileOf(format);
    const { config } = await loadConfig([
      ...[job.configFile, "--dataset", file, "--eval_dataset", file],
      ...["--output_dir", join(job.directory, "out")],
    ]);
    const run = await prepareRun(config);
    try {
      const { model, sample } = run;
      const { tokenizer } = model;
      const text = isChat
        ? tokenizer.applyChatTemplate([{ role: "user", content: question }], {
            addGenerationPrompt: true,
          })
        : question;
      assert.ok(text.includes(question) && (text !== question) === isChat);
      assert.deepEqual(sample?.prompt, await tokenizer.encode(text));
      assert.deepEqual([sample?.promptText, sample?.isChat], [question, isChat]);
    } finally {
      await run.close();
    }
  });
}

test("a run on chats says so in its events, its lines and its samples", async () => {
  const file = await fileOf("messages");
  const data = ["--dataset", file, "--eval_dataset", file];
  const outcome = await lockstepCommand(
    ["train", job.configFile, "--json-logs", ...data],
    join(job.directory, "cache"),
  );
  assert.equal(outcome.code, 0, outcome.stderr);
  const [sample] = outcome.of("sample.generated");
  assert.deepEqual([sample?.prompt, sample?.isChat], [question, true]);
  const event = { type: "sample.generated", step: 0, prompt: "why", text: "so" } as const;
  const view = emptyView(0);
  assert.equal(logLine(event, view, 0), "sample at step 0: why|so");
  assert.equal(
    logLine({ ...event, isChat: true }, view, 0),
    "sample at step 0: user: why|assistant: so",
  );
  const lines = (isChat: boolean) =>
    renderSample({ ...event, isChat }, { columns: 80, palette: plainPalette });
  assert.deepEqual(lines(false), ["Sample before training", "  whyso"]);
  assert.deepEqual(lines(true), ["Sample before training", "  user: why", "  assistant: so"]);
});
