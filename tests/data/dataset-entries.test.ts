import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { DatasetEntry } from "#lib/config/index";
import { readDatasetList } from "#lib/config/dataset-entries";
import { BadExamples } from "#lib/data/bad-examples";
import { findSources } from "#lib/data/dataset-info";
import { readExamples } from "#lib/data/examples";
import type { Example } from "#lib/data/formats/index";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-entries-"));
});
after(() => rm(directory, { recursive: true, force: true }));

/** The examples of rows as an entry reads them. */
async function examplesOf(
  rows: readonly unknown[],
  entry: Readonly<Record<string, unknown>>,
): Promise<Example[]> {
  await writeFile(join(directory, "rows.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
  const list = [{ path: directory, data_files: "rows.jsonl", ...entry }];
  const read = readDatasetList(list, { key: "dataset", where: "", warnings: [] });
  const found: Example[] = [];
  for (const source of await findSources(read as DatasetEntry[], { datasetDir: directory })) {
    for await (const { example } of readExamples(source, new BadExamples("error")))
      found.push(example);
  }
  return found;
}

const turns = (example: Example | undefined): [string, string, boolean | undefined][] => {
  assert.ok(example?.kind === "conversation");
  return example.messages.map(({ role, content }, i) => [
    role,
    String(content),
    example.isLearnt[i],
  ]);
};

test("alpaca is Stanford's prompt, with and without an input", async () => {
  const [with_, without] = await examplesOf(
    [
      { instruction: "Add.", input: "2 and 2", output: "4", system: "not read" },
      { instruction: "Say hello.", input: "", output: "Hello" },
    ],
    { type: "alpaca" },
  );
  assert.deepEqual(with_, {
    kind: "completion",
    prompt:
      "Below is an instruction that describes a task, paired with an input that provides further " +
      "context. Write a response that appropriately completes the request.\n\n### Instruction:\n" +
      "Add.\n\n### Input:\n2 and 2\n\n### Response:\n",
    completion: "4",
  });
  assert.deepEqual(without, {
    kind: "completion",
    prompt:
      "Below is an instruction that describes a task. Write a response that appropriately " +
      "completes the request.\n\n### Instruction:\nSay hello.\n\n### Response:\n",
    completion: "Hello",
  });
});

test("a mapping writes the prompt out of columns with other names, as Python's format does", async () => {
  const type = {
    ...{ field_instruction: "q", field_input: "about", field_output: "a", field_system: "rules" },
    system_prompt: "Be {brief}.",
    system_format: "<<{system}>> ",
    format: "{{Q}} {instruction} ({input}) A:",
    no_input_format: "Q {instruction} A:",
  };
  const rows = [
    { q: "Who?", about: "$& {input}", a: "Ada" },
    { q: "Who?", a: "Bob", rules: "Lie." },
  ];
  const found = await examplesOf(rows, { type });
  assert.deepEqual(
    found.map((example) => example.kind === "completion" && [example.prompt, example.completion]),
    [
      ["<<Be {brief}.>> {Q} Who? ($& {input}) A:", "Ada"],
      ["<<Lie.>> Q Who? A:", "Bob"],
    ],
  );
  await assert.rejects(examplesOf([{ q: "Who?", a: "" }], { type }), { code: "E_DATA_NO_ANSWER" });
  await assert.rejects(examplesOf([{ a: "Ada" }], { type }), {
    code: "E_DATA_ROW_FORMAT",
    message: /lacks "q" \(it has a\)/,
  });
});

test("chat_template maps parts and roles, takes a system column and marks of messages", async () => {
  const talk = [
    { from: "human", value: "2 + 2?" },
    { from: "gpt", value: "five", train: false },
    { from: "human", value: "No.", train: false },
    { from: "gpt", value: "4" },
  ];
  const mapped = {
    ...{ type: "chat_template", field_messages: "talk", field_system: "context" },
    message_property_mappings: { role: "from", content: "value" },
    message_field_training: "train",
  };
  const [example] = await examplesOf([{ talk, context: "Be brief." }], mapped);
  assert.deepEqual(turns(example), [
    ["system", "Be brief.", false],
    ["user", "2 + 2?", false],
    ["assistant", "five", false],
    ["user", "No.", false],
    ["assistant", "4", true],
  ]);
  const [dropped] = await examplesOf([{ talk, context: "Be brief." }], {
    ...mapped,
    drop_system_message: true,
  });
  assert.deepEqual(turns(dropped)[0], ["user", "2 + 2?", false]);
  await assert.rejects(
    examplesOf([{ talk: [{ from: "human", value: "?", train: true }] }], mapped),
    /message 1 is to be learnt, and human is not the assistant/,
  );
  const weighed = (train: boolean, weight: number) => [
    { talk: [...talk, { from: "gpt", value: "5", train, loss_weight: weight }] },
  ];
  await assert.rejects(
    examplesOf(weighed(true, 0), mapped),
    /message \d is to be learnt, and has the weight 0/,
  );
  const [unlearnt] = await examplesOf(weighed(false, 2), mapped);
  assert.deepEqual(turns(unlearnt).at(-1), ["assistant", "5", false]);
  await assert.rejects(examplesOf([{ messages: [] }], mapped), /lacks "talk" \(it has messages\)/);
  // Roles of its own replace the usual ones.
  const [roles] = await examplesOf(
    [
      {
        messages: [
          { role: "pupil", content: "?" },
          { role: "master", content: "!" },
        ],
      },
    ],
    { type: "chat_template", roles: { user: ["pupil"], assistant: ["master"] } },
  );
  assert.deepEqual(turns(roles), [
    ["user", "?", false],
    ["assistant", "!", true],
  ]);
});

test("completion learns the whole text of a column; without a type the columns tell", async () => {
  assert.deepEqual(await examplesOf([{ body: "A text." }], { type: "completion", field: "body" }), [
    { kind: "text", text: "A text." },
  ]);
  assert.deepEqual(await examplesOf([{ prompt: "2 + 2 =", completion: " 4" }], {}), [
    { kind: "completion", prompt: "2 + 2 =", completion: " 4" },
  ]);
});
