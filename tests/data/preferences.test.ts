import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { BadExamples } from "#lib/data/bad-examples";
import { findSources } from "#lib/data/dataset-info";
import { readExamples } from "#lib/data/examples";
import {
  type Example,
  type FormatOptions,
  type PairSide,
  parseExample,
  readingOf,
} from "#lib/data/formats/index";

const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

const shown = (side: PairSide): string =>
  side.kind === "completion"
    ? `${side.prompt}[${side.completion}]`
    : side.messages
        .map(({ role, content }, i) =>
          side.isLearnt[i] === true
            ? `[${role}: ${String(content)}]`
            : `${role}: ${String(content)}`,
        )
        .join(" ");

const sides = (example: Example): readonly [string, string] => {
  assert.ok(example.kind === "pair");
  return [shown(example.chosen), shown(example.rejected)];
};

const pair = (fields: Readonly<Record<string, unknown>>, options: FormatOptions = {}) =>
  sides(parseExample({ place: "rows.jsonl:1", fields }, "preference", options));

test("TRL's columns: texts and messages, with a prompt or with what both sides begin with", () => {
  assert.deepEqual(pair({ prompt: "1 + 1 = ", chosen: "2", rejected: "3" }), [
    "1 + 1 = [2]",
    "1 + 1 = [3]",
  ]);
  // A blank before the first difference belongs to the answers.
  assert.deepEqual(pair({ chosen: "The sky is blue.", rejected: "The sky is green." }), [
    "The sky is[ blue.]",
    "The sky is[ green.]",
  ]);
  // One side may be what the other begins with, and half of a character is none.
  assert.deepEqual(pair({ chosen: "a 😀", rejected: "a 😁" }), ["a[ 😀]", "a[ 😁]"]);
  assert.deepEqual(pair({ chosen: "yes", rejected: "yes, no" }), ["ye[s]", "ye[s, no]"]);
  const said = ["user: Hi [assistant: Good day.]", "user: Hi [assistant: What?]"];
  const [good, bad] = [assistant("Good day."), assistant("What?")];
  assert.deepEqual(pair({ prompt: [user("Hi")], chosen: [good], rejected: [bad] }), said);
  assert.deepEqual(pair({ chosen: [user("Hi"), good], rejected: [user("Hi"), bad] }), said);
});

test("earlier answers of a prompt are not learnt", () => {
  const prompt = [user("a"), assistant("b"), user("c")];
  assert.deepEqual(
    pair({ prompt, chosen: [assistant("d")], rejected: [assistant("e")] })[0],
    "user: a assistant: b user: c [assistant: d]",
  );
  const row = { instruction: "c", input: "", history: [["a", "b"]], chosen: "d", rejected: "e" };
  assert.deepEqual(pair(row), [
    "user: a assistant: b user: c [assistant: d]",
    "user: a assistant: b user: c [assistant: e]",
  ]);
});

test("ShareGPT's and OpenAI's prompts have a message of either answer", () => {
  const from = (name: string, value: string) => ({ from: name, value });
  assert.deepEqual(
    pair({
      ...{ conversations: [from("human", "a")], system: "s" },
      ...{ chosen: from("gpt", "b"), rejected: from("gpt", "c") },
    }),
    ["system: s user: a [assistant: b]", "system: s user: a [assistant: c]"],
  );
  assert.deepEqual(
    pair({ messages: [user("a")], chosen: assistant("b"), rejected: assistant("c") })[1],
    "user: a [assistant: c]",
  );
});

test("a prompt beside whole chats stands in them already", () => {
  const [good, bad] = [assistant("b"), assistant("c")];
  const said = ["user: a [assistant: b]", "user: a [assistant: c]"];
  const chats = { chosen: [user("a"), good], rejected: [user("a"), bad] };
  // As UltraFeedback has it, where `messages` is the chosen chat again.
  assert.deepEqual(pair({ prompt: "a", ...chats, messages: chats.chosen }), said);
  assert.deepEqual(pair({ prompt: [user("a")], ...chats }), said);
  assert.throws(() => pair({ prompt: "z", ...chats }), /lists of messages that do not begin with/);
});

test("a system message that columns names belongs to the prompt, or is refused", () => {
  const row = { system: "s", question: "a", chosen: "b", rejected: "c" };
  const named = { system: "system", prompt: "question" };
  assert.equal(pair(row, { columns: named })[0], "system: s user: a [assistant: b]");
  const { question: prompt, ...rest } = row;
  const options = { columns: { system: "system" } };
  assert.equal(pair({ prompt, ...rest }, options)[1], "system: s user: a [assistant: c]");
  const chats = { system: "s", chosen: [user("a"), assistant("b")], rejected: [user("a")] };
  assert.throws(() => pair(chats, options), /columns names a system message/);
  assert.throws(
    () => pair({ ...row, prompt: "a", tools: "[]" }, { columns: { tools: "tools" } }),
    /columns names tools/,
  );
});

test("columns of a pair that its form does not have are told", () => {
  const note = (fields: Readonly<Record<string, unknown>>): string | undefined =>
    readingOf({ place: "rows.jsonl:1", fields }, {}).note;
  const texts = { prompt: "a", chosen: "b", rejected: "c" };
  assert.equal(note({ ...texts, margin: 1 }), undefined);
  const row = { place: "rows.jsonl:1", fields: { ...texts, margin: 1 } };
  for (const options of [
    {},
    { format: "preference", columns: { margin: "margin" } },
    { format: "preference" },
  ] as const) {
    const reading = readingOf(row, { ...options, ignoresMargins: true });
    assert.equal(reading.note, "columns that are not read: margin");
  }
  const mapping = { margin: "margin" };
  assert.equal(readingOf(row, { mapping }).columns?.margin, "margin");
  assert.throws(
    () => readingOf(row, { mapping, ignoresMargins: true }),
    /columns names margin, which only objective: reward reads/,
  );
  const others = { system: "s", input: "i", history: [], tools: "[]", messages: [] };
  assert.equal(
    note({ ...texts, ...others, instruction: "d" }),
    "columns that are not read: system, input, history, tools, messages, instruction",
  );
  const { prompt: instruction, ...answers } = texts;
  assert.equal(note({ instruction, ...answers, system: "s", input: "i" }), undefined);
  const chats = { chosen: [user("a"), assistant("b")], rejected: [user("a"), assistant("c")] };
  assert.equal(note({ ...chats, tools: "[]" }), undefined);
  assert.equal(note({ ...chats, system: "s" }), "columns that are not read: system");
});

test("a margin is a number, or the text of one", () => {
  const margin = (value: unknown, options: FormatOptions = {}, column = "margin"): unknown => {
    const fields = { prompt: "a", chosen: "b", rejected: "c", [column]: value };
    const example = parseExample({ place: "rows.jsonl:1", fields }, "preference", options);
    return example.kind === "pair" && example.margin;
  };
  assert.deepEqual(
    [" 1.5 ", -2, null].map((value) => margin(value)),
    [1.5, -2, null],
  );
  assert.equal(margin("large", { ignoresMargins: true }), null);
  assert.equal(margin(3, { columns: { margin: "m" } }), null);
  assert.equal(margin(3, { columns: { margin: "m" } }, "m"), 3);
  for (const value of [" ", "0x10", true, "1e999", []]) {
    assert.throws(() => margin(value), /the margin in "margin" is not a number/);
  }
  assert.equal(margin(""), null);
});

test("a row that is no pair is refused by its place and what it lacks", () => {
  const refusal = (fields: Readonly<Record<string, unknown>>): string => {
    try {
      pair(fields);
    } catch (error) {
      if (isLockstepError(error)) return `${error.code}: ${error.message}`;
      throw error;
    }
    return "none";
  };
  assert.match(
    refusal({ prompt: "a", chosen: "b" }),
    /^E_DATA_NO_ANSWER: rows\.jsonl:1: .*rejected answer/,
  );
  assert.match(
    refusal({ prompt: "a", chosen: "", rejected: "b" }),
    /^E_DATA_NO_ANSWER: .*chosen answer/,
  );
  assert.match(
    refusal({ prompt: "a", chosen: [], rejected: [] }),
    /^E_DATA_NO_ANSWER: .*chosen answer/,
  );
  const mixed = { prompt: "a", chosen: [assistant("b")], rejected: [assistant("c")] };
  assert.match(refusal(mixed), /^E_DATA_ROW_FORMAT: .*"prompt" is text, and the answers are lists/);
  assert.match(refusal({ prompt: "a", chosen: "b", rejected: 3 }), /"rejected" is not text/);
  const odd = { prompt: "a", chosen: "b", rejected: "c", margin: "much" };
  assert.match(refusal(odd), /"margin" is not a number/);
});

test("an entry of dataset_info.json with ranking names the columns of both answers", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-pairs-"));
  t.after(() => rm(directory, { recursive: true }));
  const write = (name: string, value: unknown) =>
    writeFile(join(directory, name), JSON.stringify(value));
  await write("dataset_info.json", {
    a: {
      ...{ file_name: "a.json", ranking: true },
      columns: { prompt: "question", query: "context", chosen: "good", rejected: "bad" },
    },
    s: {
      ...{ file_name: "s.json", ranking: true, formatting: "sharegpt" },
      columns: { messages: "talk", chosen: "good", rejected: "bad" },
      tags: {
        role_tag: "role",
        content_tag: "content",
        user_tag: "user",
        assistant_tag: "assistant",
      },
    },
  });
  await write("a.json", [{ question: "q", context: "c", good: "g", bad: "b", system: "unread" }]);
  await write("s.json", [{ talk: [user("q")], good: assistant("g"), bad: assistant("b") }]);
  const found: (readonly [string, string])[] = [];
  for (const source of await findSources(["a", "s"], { datasetDir: directory })) {
    for await (const { example } of readExamples(source, new BadExamples("error"))) {
      found.push(sides(example));
    }
  }
  assert.deepEqual(found, [
    ["user: q\nc [assistant: g]", "user: q\nc [assistant: b]"],
    ["user: q [assistant: g]", "user: q [assistant: b]"],
  ]);
});
