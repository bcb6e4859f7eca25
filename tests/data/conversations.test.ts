import assert from "node:assert/strict";
import { test } from "node:test";
import {
  answer,
  call,
  refused,
  textOf,
  tokenizerWith,
  user,
  withCall,
  withTemplate,
  wholeTemplate,
} from "#tests/support/chat-rows";

// What is read of a row's messages, calls and tools, and what is refused.

test("arguments that are JSON text are read, in every form of a call", () => {
  const expected = 'CALL {"name": "rain", "arguments": {"town": "Lyon", "at": null}}<|im_end|>';
  const text = '{"town": "Lyon", "at": null}';
  for (const message of [
    { content: "", tool_calls: [{ type: "function", function: call(text) }] },
    { content: null, tool_calls: [{ id: "1", type: "function", function: call(text) }] },
    { tool_calls: [call(text)] },
    { content: "", function_call: call(text) },
    { content: null, tool_calls: [], function_call: call(text) },
  ]) {
    assert.ok(textOf(withCall(message)).includes(expected), JSON.stringify(message));
  }
  const turns = [
    { from: "human", value: "Rain?" },
    {
      from: "function_call",
      value: JSON.stringify({ name: "rain", arguments: { town: "Lyon", at: null } }),
    },
    { from: "observation", value: "yes" },
    { from: "gpt", value: "It rains." },
  ];
  assert.ok(textOf({ conversations: turns }).includes(expected));
});

test("keys that a table filled up are not there, at any depth; in JSON text null was meant", () => {
  const padded = withCall(
    {
      content: null,
      name: null,
      tool_calls: [
        {
          id: null,
          function: call({ town: null, city: "Paris", in: { a: null, b: [null, { c: null }] } }),
        },
      ],
    },
    {
      tools: [
        { type: "function", function: { name: "rain", parameters: { x: null, y: { z: null } } } },
      ],
    },
  );
  const text = textOf(padded);
  assert.ok(
    text.includes('CALL {"name": "rain", "arguments": {"city": "Paris", "in": {"b": [null, {}]}}}'),
  );
  assert.ok(
    text.startsWith(
      'TOOL {"type": "function", "function": {"name": "rain", "parameters": {"y": {}}}}\n',
    ),
  );
  const tools = JSON.stringify([{ name: "rain", default: null }]);
  assert.ok(
    textOf(withCall({ content: "x" }, { tools })).startsWith(
      'TOOL {"name": "rain", "default": null}\n',
    ),
  );
});

test("digits stay as they are written, as do the places of keys", () => {
  const args =
    '{"big": 9007199254740993, "float": 20.0, "e": 1e5, "10": -0.0, "2": 1E-7, "n": 1.50}';
  const expected =
    '{"big": 9007199254740993, "float": 20.0, "e": 100000.0, "10": -0.0, "2": 1e-07, "n": 1.5}';
  for (const given of [args, JSON.stringify(args)]) {
    const row = `{"messages": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "rain", "arguments": ${given}}}]}]}`;
    assert.ok(textOf(row).includes(`"arguments": ${expected}}`), textOf(row));
  }
});

test("function_call, the role function and functions are read as what came after them", () => {
  const functions = [{ name: "rain", parameters: { type: "object" } }];
  const row = {
    functions,
    messages: [
      user,
      { role: "assistant", content: null, function_call: call('{"town": "Lyon"}') },
      { role: "function", name: "rain", content: "yes" },
      answer,
    ],
  };
  assert.equal(
    textOf(row),
    'TOOL {"type": "function", "function": {"name": "rain", "parameters": {"type": "object"}}}\n' +
      "<|im_start|>user\nRain?<|im_end|>\n" +
      '<|im_start|>assistant\nCALL {"name": "rain", "arguments": {"town": "Lyon"}}<|im_end|>\n' +
      "<|im_start|>tool\nyes<|im_end|>\n<|im_start|>assistant\nIt rains.<|im_end|>\n",
  );
  refused({ ...row, tools: functions }, "E_DATA_ROW_FORMAT", /both tools and functions/);
  refused(
    withCall({ function_call: call("{}"), tool_calls: [call("{}")] }),
    "E_DATA_ROW_FORMAT",
    /message 2 has both tool_calls and a function_call/,
  );
  refused(withCall({ function_call: "rain" }), "E_DATA_ROW_FORMAT", /function_call of message 2/);
});

test("thoughts are read by all their names, and refused where two of them differ", () => {
  for (const field of ["reasoning_content", "reasoning", "thinking"]) {
    const text = textOf({ messages: [user, { ...answer, [field]: "clouds" }] });
    assert.ok(text.includes("<think>clouds</think>It rains."), field);
  }
  const same = { ...answer, reasoning: "clouds", reasoning_content: "clouds" };
  assert.ok(textOf({ messages: [user, same] }).includes("<think>clouds</think>"));
  refused(
    { messages: [user, { ...same, reasoning: "sun" }] },
    "E_DATA_ROW_FORMAT",
    /message 2 has different texts in reasoning_content and reasoning/,
  );
  refused(
    { messages: [user, { ...answer, reasoning: ["a"] }] },
    "E_DATA_ROW_FORMAT",
    /reasoning of message 2/,
  );
});

test("content is text or parts of text, and anything else is refused by name", () => {
  const parts = (...content: unknown[]): object => ({
    messages: [{ role: "user", content }, answer],
  });
  assert.ok(
    textOf(
      parts({ type: "text", text: "a", image_url: null }, { type: "text", text: "b" }),
    ).includes("\nab<|im_end|>"),
  );
  refused(
    parts({ type: "text", text: "a" }, { type: "image_url", image_url: { url: "x" } }),
    "E_DATA_ROW_FORMAT",
    /message 1 has a part of the type "image_url"/,
  );
  refused(parts({ type: "text", text: "a", image_url: "x" }), "E_DATA_ROW_FORMAT", /"image_url"/);
  refused(parts("a"), "E_DATA_ROW_FORMAT", /content of message 1 is not text/);
  refused(
    { messages: [{ role: "user" }, answer] },
    "E_DATA_ROW_FORMAT",
    /message 1 has neither content nor tool_calls/,
  );
  refused(
    { messages: [user, { role: "assistant", content: null }] },
    "E_DATA_ROW_FORMAT",
    /message 2 has neither/,
  );
  refused(
    { messages: [user, { ...answer, refusal: "no" }] },
    "E_DATA_ROW_FORMAT",
    /message 2 has "refusal"/,
  );
  for (const column of ["images", "chat_template_kwargs"]) {
    const row = { messages: [user, answer], [column]: ["x"] };
    refused(row, "E_DATA_ROW_FORMAT", new RegExp(`it has "${column}", which is not read`));
    assert.ok(textOf({ ...row, [column]: [] }));
  }
  const inert = { ...answer, refusal: null, audio: null, annotations: [], name: "bot", id: "7" };
  assert.ok(textOf({ messages: [user, inert] }).includes("It rains."));
});

test("calls, arguments and tools that cannot be read are refused by name", () => {
  const wrong: [unknown, RegExp][] = [
    [
      withCall({ tool_calls: [call("Lyon")] }),
      /arguments of call 1 of message 2 are not an object/,
    ],
    [withCall({ tool_calls: [call("[1]")] }), /arguments of call 1/],
    [withCall({ tool_calls: [call('"{}"')] }), /arguments of call 1/],
    [withCall({ tool_calls: [call(3)] }), /arguments of call 1/],
    [
      withCall({ tool_calls: [call("{}"), { arguments: "{}" }] }),
      /call 2 of message 2 has no name/,
    ],
    [withCall({ tool_calls: ["rain"] }), /call 1 of message 2 is not an object/],
    [withCall({ tool_calls: { name: "rain" } }), /tool_calls of message 2 are not a list/],
    [withCall({ content: "x" }, { tools: "[{" }), /"tools" is not JSON/],
    [withCall({ content: "x" }, { tools: { name: "rain" } }), /"tools" is not a list/],
    [withCall({ content: "x" }, { tools: ["rain"] }), /tool 1 of "tools" is not an object/],
  ];
  for (const [row, words] of wrong) refused(row, "E_DATA_ROW_FORMAT", words);
});

test("tool_use is the template of rows with tools, wherever it is kept; without a default others fail", async () => {
  const [plain, tools] = ["DEFAULT", "TOOLS"].map(
    (name) => `${name}{{ tools or '' }}${wholeTemplate}`,
  );
  const withTools = { messages: [user, answer], tools: [{ name: "rain" }] };
  const config = (chat_template: unknown): Record<string, string> => ({
    "tokenizer_config.json": JSON.stringify({ eos_token: "<|im_end|>", chat_template }),
  });
  for (const files of [
    config([
      { name: "default", template: plain },
      { name: "tool_use", template: tools },
    ]),
    config({ default: plain, tool_use: tools }),
    {
      ...config("unused"),
      "chat_template.jinja": plain ?? "",
      "additional_chat_templates/tool_use.jinja": tools ?? "",
    },
  ]) {
    const tokenizer = await tokenizerWith(files);
    assert.match(textOf(withTools, tokenizer), /^TOOLS/);
    assert.match(textOf({ messages: [user, answer] }, tokenizer), /^DEFAULT/);
  }
  const noDefault = await tokenizerWith(config([{ name: "tool_use", template: tools }]));
  assert.match(textOf(withTools, noDefault), /^TOOLS/);
  refused(
    { messages: [user, answer] },
    "E_CHAT_TEMPLATE_FAILED",
    /tool_use, and no default/,
    noDefault,
  );
});

test("what a template raises names the template and the row", async () => {
  for (const [template, words] of [
    ["{{ raise_exception('no system, please') }}", /no system, please/],
    ["{{ unheard_of(messages) }}", /'unheard_of' is undefined/],
    ["{{ messages[0].content + 1 }}", /unsupported operand/],
  ] as const) {
    refused(
      { messages: [user, answer] },
      "E_CHAT_TEMPLATE_FAILED",
      words,
      await withTemplate(template),
    );
    refused(
      { messages: [user, answer] },
      "E_CHAT_TEMPLATE_FAILED",
      /chat_template\.jinja/,
      await withTemplate(template),
    );
  }
  await assert.rejects(withTemplate("{% if %}"), { code: "E_CHAT_TEMPLATE_FAILED" });
});

test("conversations in the form of messages are read as such", () => {
  const row = { conversations: [user, { ...answer, weight: 0 }, user, answer] };
  assert.ok(textOf(row).includes("<|im_start|>assistant\nIt rains.<|im_end|>"));
});
