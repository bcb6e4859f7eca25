import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { parseFlags } from "#lib/config/index";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { isLockstepError } from "#lib/core/errors/index";
import { BadExamples } from "#lib/data/bad-examples";
import { findSources } from "#lib/data/dataset-info";
import { type DataSource, readExamples } from "#lib/data/examples";
import type { DatasetFormat, Example } from "#lib/data/formats/index";
import { classLabels } from "#lib/objectives/class-labels";

const readLabel = classLabels.read;

const directory = await mkdtemp(join(tmpdir(), "lockstep-columns-"));
after(() => rm(directory, { recursive: true }));

let numFiles = 0;
async function file(extension: string, content: string): Promise<string> {
  const path = join(directory, `${numFiles++}${extension}`);
  await writeFile(path, content);
  return path;
}

const resolve = (keys: Readonly<Record<string, unknown>>, ...flags: string[]): Resolution =>
  resolveConfig(
    parseConfigText(JSON.stringify({ model_name_or_path: "m", ...keys }), "job.yaml"),
    parseFlags(flags, isSwitchKey, isTextKey).values,
    { cpuCount: 2 },
  );

/** The first example as a job with these columns reads it, and what is told. */
async function first(
  rows: readonly unknown[] | string,
  keys: Readonly<Record<string, unknown>>,
  { format, isTextModel = true }: { format?: DatasetFormat; isTextModel?: boolean } = {},
): Promise<{ example: Example; notes: string[] }> {
  const path =
    typeof rows === "string"
      ? await file(".csv", rows)
      : await file(".jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));
  const { config } = resolve({ dataset: path, ...keys });
  const sources = await findSources(config.dataset, {
    ...{ datasetDir: directory, textField: config.dataset_text_field, columns: config.columns },
    isTextModel,
  });
  const [source] = sources;
  assert.ok(source !== undefined);
  const whole: DataSource = format === undefined ? source : { format, ...source };
  const notes: string[] = [];
  const tell = (line: string): void => void notes.push(line);
  for await (const { example } of readExamples(whole, new BadExamples("error"), {
    tell,
    readLabel,
  })) {
    return { example, notes };
  }
  return assert.fail("no row");
}

async function problem(action: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof action === "function" ? action() : action);
  } catch (error) {
    assert.ok(isLockstepError(error), String(error));
    return `${error.code}: ${error.message}`;
  }
  return assert.fail("it is accepted");
}

const turns = (example: Example): string[] => {
  assert.ok(example.kind === "conversation");
  return example.messages.map(({ role, content }) => `${role}: ${content}`);
};

test("columns of any name are read in every format, and tell which one", async () => {
  const review = { columns: { text: "review", label: "sentiment" } };
  const labelled = await first("review,sentiment\nFine.,good\n", review);
  assert.deepEqual(labelled.example, {
    kind: "labelled",
    text: "Fine.",
    pair: null,
    label: "good",
  });
  const pair = await first("a,b,c\nx,y,0\n", {
    columns: { sentence1: "a", sentence2: "b", label: "c" },
  });
  assert.deepEqual(pair.example, { kind: "labelled", text: "x", pair: "y", label: "0" });
  // Dolly's columns.
  const dolly = [{ instruction: "Add.", context: "1 and 2", response: "3" }];
  for (const columns of [
    { query: "context", response: "response" },
    { instruction: "instruction", input: "context", output: "response" },
    { prompt: "instruction", query: "context", response: "response" },
  ]) {
    const { example } = await first(dolly, { columns });
    assert.deepEqual(turns(example), ["user: Add.\n1 and 2", "assistant: 3"]);
  }
  const asked = [{ question: "2 + 2 =", answer: " 4" }];
  const completion = await first(asked, { columns: { prompt: "question", completion: "answer" } });
  assert.deepEqual(completion.example, { kind: "completion", prompt: "2 + 2 =", completion: " 4" });
  const talk = [
    {
      talk: [
        { role: "user", content: "?" },
        { role: "assistant", content: "!" },
      ],
      rules: "Be brief.",
    },
  ];
  const chat = await first(talk, { columns: { messages: "talk", system: "rules" } });
  assert.deepEqual(turns(chat.example), ["system: Be brief.", "user: ?", "assistant: !"]);
  const gpt = [
    {
      talk: [
        { from: "human", value: "?" },
        { from: "gpt", value: "!" },
      ],
    },
  ];
  const shared = await first(gpt, { columns: { messages: "talk" } });
  assert.deepEqual(turns(shared.example), ["user: ?", "assistant: !"]);
  const text = await first([{ body: "A text." }], { columns: { text: "body" } });
  assert.deepEqual(text.example, { kind: "text", text: "A text." });
});

test("an entry has columns of its own", async () => {
  const path = await file(".jsonl", '{"q": "2 + 2 =", "a": " 4"}');
  const { config } = resolve({ dataset: [{ path, columns: { prompt: "q", completion: "a" } }] });
  const [source] = await findSources(config.dataset, { datasetDir: directory });
  for await (const { example } of readExamples(source as DataSource, new BadExamples("error"), {
    readLabel,
  })) {
    assert.deepEqual(example, { kind: "completion", prompt: "2 + 2 =", completion: " 4" });
  }
  assert.match(
    await problem(() => resolve({ dataset: [{ path, type: "alpaca", columns: { query: "c" } }] })),
    /E_CONFIG_UNSUPPORTED: dataset\[0\]\.columns: .*type says/,
  );
});

test("columns that are not there, not known or not read are refused with those that there are", async () => {
  const asked = [{ question: "2 + 2 =", answer: " 4" }];
  assert.match(
    await problem(first(asked, { columns: { prompt: "query", completion: "answer" } })),
    /E_DATA_COLUMNS: .*:1: columns names "query" for prompt; the columns are question, answer\./,
  );
  assert.match(
    await problem(first(asked, { columns: { prompt: "question", response: "answer" } })),
    /set dataset_format to one of them, or write completion or output/,
  );
  const format = { format: "prompt-completion" } as const;
  const both = await first(asked, { columns: { prompt: "question", response: "answer" } }, format);
  assert.equal(both.example.kind, "completion");
  const talk = [{ talk: [], kind: "x" }];
  assert.match(
    await problem(first(talk, { columns: { label: "kind", messages: "talk" } })),
    /columns names messages, which rows of the format classification do not have/,
  );
  const config = (columns: unknown, more: object = {}) =>
    problem(() => resolve({ dataset: "a.jsonl", columns, ...more }));
  assert.match(
    await config({ promt: "a" }),
    /E_CONFIG_UNKNOWN_KEY: .*columns\.promt .*mean prompt/,
  );
  assert.match(
    await config({ prompt: "a", instruction: "b" }),
    /columns\.prompt and columns\.instr/,
  );
  assert.match(await config({ text: "a", label: "a" }), /both name a/);
  assert.match(await config({ text: 3 }), /E_CONFIG_INVALID/);
  assert.match(
    await config({ text: "a" }, { dataset_text_field: "b" }),
    /E_CONFIG_CONFLICT: .*column of texts/,
  );
  const { config: flagged } = resolve({ dataset: "a" }, "--columns", "{text: review}");
  assert.deepEqual(flagged.columns, { text: "review" });
  // Who describes columns elsewhere is not overruled without a word.
  const columns = { text: "a" };
  assert.match(
    await problem(findSources(["sotu"], { datasetDir: directory, columns })),
    /E_CONFIG_CONFLICT: .*a built-in data set says itself/,
  );
  await writeFile(join(directory, "dataset_info.json"), '{"rows": {"file_name": "rows.json"}}');
  assert.match(
    await problem(findSources(["rows"], { datasetDir: directory, columns })),
    /dataset_info\.json says itself what the columns of rows hold/,
  );
});

test("rows that nothing tells are refused with the key that says it, also where they are wrapped", async () => {
  const unknown = await problem(first("review,sentiment\nFine.,good\n", {}));
  assert.match(unknown, /E_DATA_FORMAT_UNKNOWN: .*the fields review, sentiment/);
  const wrapped = await problem(first([{ data: [{ prompt: "a", completion: "b" }] }], {}));
  const capital = await problem(first("Text,Label\nFine.,good\n", {}));
  assert.match(capital, /columns: \{text: Text, label: Label\} may be what is meant/);
  for (const fields of [
    { 0: { text: "a" }, 1: { text: "b" } },
    { text: { 0: "a", 1: "b" }, label: { 0: 1, 1: 0 } },
    { text: ["a", "b"], label: [1, 0] },
  ]) {
    assert.match(await problem(first([fields], {})), /E_DATA_FORMAT_UNKNOWN: .*orient="records"/);
  }
  assert.match(wrapped, /the rows seem to stand in its field data: .*jq -c '\.data\[\]'/);
});

test("columns that are not read are told, once", async () => {
  const rows = [
    { id: 1, text: "a", source: "x" },
    { id: 2, text: "b", source: "y" },
  ];
  const { notes } = await first(rows, {});
  assert.deepEqual(notes, ["columns that are not read: id, source"]);
  const asked = await first([{ q: "a ", a: "b", id: 1 }], {
    columns: { prompt: "q", completion: "a" },
  });
  assert.deepEqual(asked.notes, ["columns that are not read: id"]);
  const dolly = [{ instruction: "Add.", context: "1 and 2", response: "3" }];
  assert.match(
    await problem(first(dolly, {})),
    /E_DATA_COLUMNS: .*no column output for the answer; the columns are instruction, context, response/,
  );
});

test("columns that only later rows have, and that are not read, are told with their place", async () => {
  const messages = [
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Ho" },
  ];
  const rows: unknown[] = [
    { messages, id: 1 },
    { messages, tools: [], images: [] },
    { messages, id: 2, system: "Be brief.", source: null },
    { messages, system: "Be long.", lang: "en" },
  ];
  const tellRows = async (source: Partial<DataSource> = {}): Promise<string[]> => {
    const path = await file(".jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));
    const notes: string[] = [];
    const tell = (line: string): void => void notes.push(line.replace(path, "FILE"));
    const read = readExamples({ source: path, ...source }, new BadExamples("error"), {
      tell,
      readLabel,
    });
    for await (const { example } of read) assert.equal(example.kind, "conversation");
    return notes;
  };
  assert.deepEqual(await tellRows(), [
    "columns that are not read: id",
    "columns that are not read: system, lang (from FILE:3 on)",
  ]);
  assert.deepEqual(await tellRows({ maxExamples: 3 }), [
    "columns that are not read: id",
    "columns that are not read: system (from FILE:3 on)",
  ]);
  assert.deepEqual(await tellRows({ maxExamples: 2 }), ["columns that are not read: id"]);
});

test("two system messages of a row, or thoughts and calls in a turn of text, are refused", async () => {
  const turns = [
    { from: "human", value: "Hi" },
    { from: "gpt", value: "Ho" },
  ];
  const own = { from: "system", value: "Be brief." };
  for (const [row, expected] of [
    [{ conversations: [own, ...turns], system: "Be long." }, /column for the system message says/],
    [
      { conversations: [turns[0], { ...turns[1], reasoning_content: "Hm." }] },
      /turn 2 has "reasoning_content", which is not read/,
    ],
    [
      { conversations: [turns[0], { ...turns[1], tool_calls: [{ name: "f" }] }] },
      /turn 2 has "tool_calls", which is not read/,
    ],
  ] as const) {
    assert.match(await problem(first([row], {})), expected);
  }
  const same = await first([{ conversations: [own, ...turns], system: own.value }], {});
  assert.equal(same.example.kind === "conversation" && same.example.messages.length, 3);
  const empty = [turns[0], { ...turns[1], reasoning: "", tool_calls: null, images: [] }];
  assert.equal((await first([{ conversations: empty }], {})).example.kind, "conversation");
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Ho" },
  ];
  const mapped = { columns: { messages: "messages", system: "context" } };
  assert.match(
    await problem(first([{ messages, context: "Be long." }], mapped)),
    /column for the system message says something else/,
  );
});

test("a field that is null is said to be null, not to be lacking", async () => {
  assert.match(await problem(first([{ prompt: null, completion: "b" }], {})), /"prompt" is null/);
});

test("messages are OpenAI's or ShareGPT's by their parts, whatever the column is called", async () => {
  const [user, assistant] = [
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Ho" },
  ];
  const openai = await first([{ conversations: [user, assistant] }], {});
  assert.deepEqual(turns(openai.example), ["user: Hi", "assistant: Ho"]);
  const sharegpt = [
    { from: "human", value: "Hi" },
    { from: "gpt", value: "Ho" },
  ];
  const other = await first([{ messages: sharegpt }], {});
  assert.deepEqual(turns(other.example), ["user: Hi", "assistant: Ho"]);
});

test("a named column of texts is learnt whole by a model of texts, and read with its label by others", async () => {
  const rows = [{ text: "A text.", review: "A review.", label: 1 }];
  const auto = await first(rows, {});
  assert.equal(auto.example.kind, "labelled");
  const named = await first(rows, { dataset_text_field: "text" });
  assert.deepEqual(named.example, { kind: "text", text: "A text." });
  assert.match(named.notes.join(), /labels are not read: .*dataset_format: classification/);
  const encoder = await first(rows, { dataset_text_field: "review" }, { isTextModel: false });
  assert.deepEqual(encoder.example, { kind: "labelled", text: "A review.", pair: null, label: 1 });
  assert.deepEqual(encoder.notes, ["columns that are not read: text"]);
  const other = await first([{ prompt: "a ", completion: "b" }], { dataset_text_field: "body" });
  assert.deepEqual(other.notes, [
    "rows are read as prompt-completion: they have no column body, which dataset_text_field names",
  ]);
  const asked = await first(rows, { dataset_text_field: "text" }, { format: "classification" });
  assert.equal(asked.example.kind, "labelled");
});
