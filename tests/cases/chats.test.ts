import assert from "node:assert/strict";
import { copyFile, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { parse } from "yaml";
import { packageRoot } from "#lib/core/paths";
import { evaluationBatches, loadTokenizer, prepareDataset } from "#lib/data/index";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import type { CommandOutcome } from "#tests/support/lockstep-command";
import { targetsOf, tokensOf } from "#tests/support/batches";

const engine = join(packageRoot, "dist/tests/support/fake-engine.js");

async function caseJob(t: TestContext, name: string, ...modelFiles: string[]): Promise<CaseJob> {
  const job = await createCaseJob(name);
  t.after(() => job.remove());
  for (const file of modelFiles) {
    await copyFile(job.file(file), join(job.modelDirectory, file));
  }
  return job;
}

/** Texts of a case's rows, and what of them is learnt. */
async function rowsOf(
  job: CaseJob,
  file: string,
): Promise<{ readonly texts: string[]; readonly learnt: string[] }> {
  const tokenizer = await loadTokenizer(job.modelDirectory);
  const data = await prepareDataset(
    { train: [{ source: job.file(file) }], validationFraction: 0 },
    { tokenizer, sequenceLength: 1024, vocabSize: 264, maxSequenceLength: 1024, seed: 1 },
  );
  const decode = (ids: ArrayLike<number>): Promise<string> =>
    tokenizer.decode(ids, { skipSpecialTokens: false });
  const texts: string[] = [];
  const learnt: string[] = [];
  for (const batch of evaluationBatches(data.train.rows, 1)) {
    texts.push((await decode(tokensOf(batch))).replace(/(<\|endoftext\|>)+$/, ""));
    learnt.push(await decode(targetsOf(batch).filter((target) => target >= 0)));
  }
  data.close();
  return { texts, learnt };
}

test("06: a row that the template refuses is named, and listed where it is skipped", async (t) => {
  const job = await caseJob(t, "06-template-refuses-a-row", "chat_template.jinja");
  const stops = await job.lockstep(["train", await job.writeJob({ engine_module: engine })]);
  assert.notEqual(stops.code, 0);
  assert.match(stops.stderr, /E_CHAT_TEMPLATE_FAILED/);
  assert.match(stops.stderr, /chats\.jsonl:23: the chat template of .*chat_template\.jinja/);
  assert.match(stops.stderr, /roles have to take turns/);
  const skipping = await job.writeJob({ engine_module: engine, on_bad_row: "skip" });
  const skips = await job.lockstep(["train", skipping, "--json-logs"]);
  assert.equal(skips.code, 0, skips.stderr);
  const lines = skips.of("run.started").flatMap(({ dataLines = [] }) => dataLines);
  assert.ok(
    lines.some((line) => line.includes("chats.jsonl:23")),
    lines.join("\n"),
  );
});

test("07: rows with tools are written by the template tool_use", async (t) => {
  const job = await caseJob(t, "07-template-for-tools");
  await copyFile(
    job.file("tokenizer_config.json"),
    join(job.modelDirectory, "tokenizer_config.json"),
  );
  await rm(join(job.modelDirectory, "chat_template.jinja"));
  const { texts, learnt } = await rowsOf(job, "chats.jsonl");
  assert.match(texts[0] ?? "", /^<\|im_start\|>system\nTOOLS \[\{"type": "function"/);
  assert.deepEqual(learnt, [
    'CALL {"name": "rain", "arguments": {"town": "Lyon"}}<|im_end|>It rains.<|im_end|>',
    "Hello.<|im_end|>",
  ]);
  assert.equal(
    texts[1],
    "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n",
  );
});

test("15: a call in OpenAI's older form is learnt", async (t) => {
  const job = await caseJob(t, "15-legacy-function-call", "chat_template.jinja");
  const { texts, learnt } = await rowsOf(job, "chats.jsonl");
  assert.deepEqual(learnt, [
    'CALL rain {"town": "Lyon"}<|im_end|>It rains.<|im_end|>',
    'CALL rain {"town": "Brest"}<|im_end|>It is dry.<|im_end|>',
  ]);
  assert.match(
    texts[0] ?? "",
    /^<\|im_start\|>system\n\{"type": "function", "function": \{"name": "rain", "parameters": /,
  );
  assert.match(texts[0] ?? "", /<\|im_start\|>tool\nyes<\|im_end\|>/);
});

test("25: conversations of role and content are read as messages", async (t) => {
  const job = await caseJob(t, "25-json-from-python");
  const { learnt } = await rowsOf(job, "role-content.jsonl");
  assert.deepEqual(learnt, ["Ho<|im_end|>", "Ho<|im_end|>"]);
});

test("13: the date that a template writes belongs to the run, and stays when it is resumed", async (t) => {
  const job = await caseJob(t, "13-date-in-template", "chat_template.jinja");
  const clock = (days: number): Record<string, string> => ({
    NODE_OPTIONS: `--require ${job.file("clock.cjs")}`,
    SHIFT_DAYS: String(days),
  });
  const train = async (
    name: string,
    days: number,
    settings: Readonly<Record<string, unknown>>,
  ): Promise<CommandOutcome> => {
    const file = await job.writeJob(
      {
        ...{ engine_module: engine, output_dir: job.file(name), lr_scheduler_type: "constant" },
        ...settings,
      },
      `${name}-${days}.yaml`,
    );
    const outcome = await job.lockstep(["train", file, "--json-logs"], undefined, clock(days));
    assert.equal(outcome.code, 0, outcome.stderr);
    return outcome;
  };
  const digest = (outcome: CommandOutcome): string | undefined =>
    outcome.of("run.completed")[0]?.mastersSha256;
  const dateOf = async (file: string): Promise<unknown> =>
    (parse(await readFile(job.file(file), "utf8")) as Record<string, unknown>)[
      "chat_template_date"
    ];

  const whole = await train("whole", 0, {});
  const day = await dateOf("whole/lockstep.yaml");
  assert.match(String(day), /^\d{4}-\d\d-\d\d$/);
  const [started] = whole.of("run.started");
  assert.ok(
    started?.dataLines?.some((line) => line.includes(String(day))),
    "the date is told",
  );
  // Another day gives other texts, unless the date is set.
  assert.notEqual(digest(await train("later", 3, {})), digest(whole));
  assert.equal(digest(await train("set", 3, { chat_template_date: day })), digest(whole));

  const halves = { save_strategy: "steps", save_steps: 3 };
  await train("halves", 0, { ...halves, max_steps: 3 });
  assert.equal(await dateOf("halves/checkpoint-3/lockstep/config.yaml"), day);
  const resumed = await train("halves", 3, { ...halves, resume_from_checkpoint: true });
  assert.equal(digest(resumed), digest(whole));
  assert.equal(await dateOf("halves/lockstep.yaml"), day);
  const other = await job.writeJob({
    ...{ engine_module: engine, output_dir: job.file("halves"), ...halves },
    ...{
      lr_scheduler_type: "constant",
      resume_from_checkpoint: true,
      chat_template_date: "2001-02-03",
    },
  });
  const refused = await job.lockstep(["train", other]);
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /E_RESUME_MISMATCH.*chat_template_date/s);
});
