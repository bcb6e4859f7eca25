import assert from "node:assert/strict";
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { prepareRun } from "#run/prepare";
import { loadConfig } from "#lib/config/index";
import { createCaseJob } from "#tests/support/case-job";
import { tokensOf } from "#tests/support/batches";

test("a model without tokenizer.json is told what makes it", async (t) => {
  const job = await createCaseJob("19-slow-tokenizer-files");
  t.after(() => job.remove());
  await rm(join(job.modelDirectory, "tokenizer.json"));
  for (const name of ["vocab.json", "merges.txt"]) {
    await writeFile(join(job.modelDirectory, name), "");
  }
  const settings = { model_name_or_path: job.modelDirectory };
  const { code, stderr } = await job.lockstep(["train-local", await job.writeJob(settings)]);
  assert.equal(code, 1);
  assert.match(stderr, /E_TOKENIZER_MISSING: .*vocab\.json and merges\.txt.*save_pretrained/);
});

test("chat tokens beside tokenizer.json are one token each in training", async (t) => {
  const job = await createCaseJob("24-added-tokens-beside-tokenizer-json");
  t.after(() => job.remove());
  for (const name of ["added_tokens.json", "tokenizer_config.json", "chat_template.jinja"]) {
    await cp(job.file(name), join(job.modelDirectory, name));
  }
  const file = await job.writeJob({
    ...{ model_name_or_path: job.modelDirectory, dataset: job.file("chats.jsonl") },
    output_dir: job.file("out"),
  });
  const prepared = await prepareRun((await loadConfig([file])).config);
  t.after(() => prepared.close());
  const tokens = prepared.plan.microBatches(0, 0).flatMap((batch) => [...tokensOf(batch)]);
  // transformers' ids of the first conversation have 28 tokens, four of them <|turn|> and <|turn_end|>.
  assert.equal(tokens.filter((id) => id === 260).length, 4);
  assert.equal(tokens.filter((id) => id === 261).length, 4);
  const lengths = [0, 1].map(
    (row) => tokens.slice(row * 256, (row + 1) * 256).findLastIndex((id) => id !== 0) + 1,
  );
  assert.ok(lengths.includes(28), lengths.join());
});

test("indented code is learnt as it stands, and half of a character is refused by line", async (t) => {
  const job = await createCaseJob("25-json-from-python", { addsBos: true });
  t.after(() => job.remove());
  const jobOf = (dataset: string, rest: object = {}): Promise<string> =>
    job.writeJob({
      ...{ model_name_or_path: job.modelDirectory, dataset: job.file(dataset), packing: false },
      ...{ output_dir: job.file("out"), ...rest },
    });
  const prepared = await prepareRun((await loadConfig([await jobOf("code.jsonl")])).config);
  t.after(() => prepared.close());
  const [batch = assert.fail()] = prepared.plan.microBatches(0, 0);
  const learnt = [0, 1].map((row) => [...tokensOf(batch).subarray(row * 256, (row + 1) * 256)]);
  const rows = (await readFile(job.file("code.jsonl"), "utf8")).trim().split("\n");
  // <s>, a byte b as 4 + b, <|endoftext|>.
  const expected = rows.map((line) => {
    const { text } = JSON.parse(line) as { text: string };
    const ids = [3, ...[...Buffer.from(text)].map((byte) => 4 + byte), 0];
    return [...ids, ...Array.from({ length: 256 - ids.length }, () => 0)];
  });
  assert.deepEqual(learnt.map(String).sort(), expected.map(String).sort());

  const refused = await job.lockstep(["train-local", await jobOf("surrogate.jsonl")]);
  assert.equal(refused.code, 1);
  assert.match(
    refused.stderr,
    /E_DATA_LONE_SURROGATE: .*surrogate\.jsonl:1: "prompt" holds U\+D83D/,
  );
  const left = await prepareRun(
    (
      await loadConfig([
        await jobOf("surrogate.jsonl", {
          on_bad_row: "skip",
          max_steps: 1,
          per_device_train_batch_size: 1,
        }),
      ])
    ).config,
  );
  t.after(() => left.close());
  assert.ok(left.started.dataLines?.includes("1 bad row left out:"));
});

test("a sample begins as a text does, and keys of special tokens and prompts are named with their line", async (t) => {
  const job = await createCaseJob("25-json-from-python", { addsBos: true });
  t.after(() => job.remove());
  const resolve = async (rest: object) => {
    const settings = {
      ...{ model_name_or_path: job.modelDirectory, dataset: job.file("code.jsonl") },
      ...{ output_dir: job.file("out"), packing: false, ...rest },
    };
    return (await loadConfig([await job.writeJob(settings)])).config;
  };
  const prepared = await prepareRun(await resolve({ sample_prompt: "  a\n" }));
  t.after(() => prepared.close());
  assert.deepEqual([...(prepared.sample?.prompt ?? [])], [3, 36, 36, 101, 14]);

  await assert.rejects(prepareRun(await resolve({ sample_prompt: "<s>a" })), {
    code: "E_CHAT_TEMPLATE_SECOND_BOS",
    message: /^sample_prompt \(.*changed\.yaml:\d+\): the text begins with "<s>" twice/,
  });
  await assert.rejects(resolve({ sample_prompt: "a \ud83d" }), {
    code: "E_CONFIG_INVALID",
    message: /sample_prompt must be text of whole characters, got U\+D83D.*changed\.yaml:\d+/,
  });
  await assert.rejects(prepareRun(await resolve({ special_tokens: { pad_token: "<none>" } })), {
    code: "E_CONFIG_UNSUPPORTED",
    message: /special_tokens\.pad_token: .*changed\.yaml:\d+.*model\/tokenizer\.json/,
  });
});

test("a run tells of the blank texts that it leaves out, and of a token without an embedding", async (t) => {
  const job = await createCaseJob("25-json-from-python");
  t.after(() => job.remove());
  const rows = ["a", " ", "b", ""].map((text) => JSON.stringify({ text }));
  await writeFile(job.file("blank.jsonl"), rows.join("\n"));
  const file = await job.writeJob({
    ...{ model_name_or_path: job.modelDirectory, dataset: job.file("blank.jsonl") },
    ...{ output_dir: job.file("out"), packing: false },
  });
  const { config } = await loadConfig([file]);
  const prepared = await prepareRun(config);
  t.after(() => prepared.close());
  const line = `2 blank texts left out, the first at ${job.file("blank.jsonl")}:2`;
  assert.ok(prepared.started.dataLines?.includes(line), prepared.started.dataLines?.join("\n"));

  // The model has 264 embeddings, and the tokenizer 260 tokens of its own.
  const added = Object.fromEntries(
    ["<0>", "<1>", "<2>", "<3>", "b"].map((name, i) => [name, 260 + i]),
  );
  await writeFile(join(job.modelDirectory, "added_tokens.json"), JSON.stringify(added));
  await assert.rejects(prepareRun(config), {
    code: "E_TOKENIZER_INVALID",
    message: /"b" the id 264/,
  });
  const { b, ...others } = added;
  await writeFile(
    join(job.modelDirectory, "added_tokens.json"),
    JSON.stringify({ ...others, "b b": b }),
  );
  await prepareRun(config).then((run) => run.close());
  await writeFile(job.file("blank.jsonl"), JSON.stringify({ text: "a b b" }));
  await assert.rejects(prepareRun(config), {
    code: "E_TOKEN_OUT_OF_VOCABULARY",
    message: /token 264, "b b", in .*blank\.jsonl:1, .* 264 tokens/,
  });
});
