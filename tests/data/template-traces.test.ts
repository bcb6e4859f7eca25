import assert from "node:assert/strict";
import { test } from "node:test";
import {
  answer,
  call,
  refused,
  textOf,
  user,
  withCall,
  withTemplate,
  wholeTemplate,
} from "#tests/support/chat-rows";

// Roles, and what a template drops.

test("a role that is a slip, or of another form, is refused; one that the template writes is not", async () => {
  for (const [role, words] of [
    ["usr", /message 1 has the role "usr".*user may be meant/],
    ["User", /user may be meant/],
    ["asistant", /assistant may be meant/],
    ["gpt", /message 1 has the role "gpt"/],
  ] as const) {
    refused({ messages: [{ role, content: "a" }, answer] }, "E_DATA_ROW_FORMAT", words);
  }
  for (const role of ["developer", "context", "critic"]) {
    assert.ok(textOf({ messages: [user, { role, content: "x" }, answer] }).includes(`${role}\nx`));
  }
  const knows = await withTemplate(`{% if messages[0].role == 'usr' %}{% endif %}${wholeTemplate}`);
  assert.ok(
    textOf({ messages: [{ role: "usr", content: "a" }, answer] }, knows).includes("usr\na"),
  );
});

test("what a template drops is refused: calls, arguments, tools, thoughts, a message", async () => {
  const plain = await withTemplate(
    "{% for m in messages %}{% if m.role in ['user', 'assistant', 'system'] %}<|im_start|>{{ m.role }}\n" +
      "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}" +
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
  );
  const drops = (row: unknown, words: RegExp, tokenizer = plain): void =>
    refused(row, "E_DATA_NOT_IN_TEMPLATE", words, tokenizer);
  drops(
    { messages: [user, { role: "assistant", content: "", tool_calls: [call({})] }] },
    /call 1 of message 2/,
  );
  drops({ messages: [user, { ...answer, reasoning: "clouds" }] }, /what message 2 thinks/);
  drops({ messages: [user, answer], tools: [{ name: "rain" }] }, /tool 1/);
  // The text of the tool occurs elsewhere, and is dropped all the same.
  drops(
    { messages: [user, { role: "tool", content: "rain" }, { ...answer, content: "rain" }] },
    /the content of message 2 \(tool\)/,
  );
  const nameAlone = await withTemplate(
    wholeTemplate.replace("{{ (c.function or c) | tojson }}", "{{ (c.function or c).name }}"),
  );
  drops(
    { messages: [user, { role: "assistant", content: "", tool_calls: [call({ town: "Lyon" })] }] },
    /the arguments of call 1 of message 2/,
    nameAlone,
  );
  for (const field of ["parameters", "input"]) {
    const made = { name: "rain", [field]: { town: "Lyon" } };
    drops(
      { messages: [user, { role: "assistant", content: "", tool_calls: [made] }] },
      new RegExp(`the ${field} of call 1 of message 2`),
      nameAlone,
    );
  }
  const firstCall = await withTemplate(
    wholeTemplate.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"),
  );
  drops(
    { messages: [user, { role: "assistant", content: "", tool_calls: [call({}), call({})] }] },
    /call 2 of message 2/,
    firstCall,
  );
  // Fields without a text of their own, and answers that are not learnt, may be left out.
  assert.ok(
    textOf(
      {
        messages: [
          { role: "system", content: "" },
          user,
          { ...answer, weight: 0, content: "first" },
          user,
          { ...answer, name: "x" },
        ],
      },
      plain,
    ).includes("It rains."),
  );
});

test("templates that trim, cut or rewrite a text leave a trace of it", async () => {
  const trims = await withTemplate(
    wholeTemplate
      .replace("{{ m.content }}", "{{ (m.content or '') | trim | upper }}")
      .replace(
        "{{ (c.function or c) | tojson }}",
        "{% for k, v in (c.function or c).arguments.items() %}{{ (c.function or c).name | title }}:{{ k }}={{ v }};{% endfor %}",
      ),
  );
  const row = withCall({ content: "  ", tool_calls: [call({ town: "Lyon" })] });
  assert.ok(textOf(row, trims).includes("Rain:town=Lyon;"));
});

test("thoughts of an earlier answer are in the example where it is learnt, or the row is refused", async () => {
  const lastAlone = wholeTemplate.replace(
    "{% if m.reasoning_content %}",
    "{% if m.reasoning_content and loop.last %}",
  );
  const messages = [
    user,
    { ...answer, reasoning: "clouds" },
    user,
    { ...answer, reasoning: "sun" },
  ];
  const byPrefix = await withTemplate(lastAlone);
  const marked = await withTemplate(
    lastAlone
      .replace(
        "{% if m.reasoning",
        "{% if m.role == 'assistant' %}{% generation %}{% if m.reasoning",
      )
      .replace(
        "<|im_end|>\n{% endfor %}",
        "<|im_end|>{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}",
      ),
  );
  for (const tokenizer of [byPrefix, marked]) {
    const [first = "", second = ""] = textOf({ messages }, tokenizer).split("---\n");
    assert.ok(first.trimEnd().endsWith("<think>clouds</think>It rains.<|im_end|>"), first);
    assert.ok(!second.includes("clouds") && second.includes("<think>sun</think>"), second);
  }
  // An earlier answer that is not learnt may lose its thoughts.
  const unlearnt = messages.map((each, i) => (i === 1 ? { ...each, weight: 0 } : each));
  assert.ok(!textOf({ messages: unlearnt }, byPrefix).includes("clouds"));
  const never = await withTemplate(
    wholeTemplate.replace("{% if m.reasoning_content %}", "{% if false %}"),
  );
  refused({ messages }, "E_DATA_NOT_IN_TEMPLATE", /what message 2 thinks/, never);
});

test("an answer of end tokens and blanks alone is refused", async () => {
  refused(
    { messages: [user, { role: "assistant", content: "" }, user, answer] },
    "E_DATA_BLANK_ANSWER",
    /message 2/,
  );
  refused(
    { messages: [user, { role: "assistant", content: " \n" }, user, answer] },
    "E_DATA_BLANK_ANSWER",
    /message 2/,
  );
  assert.ok(
    textOf({ messages: [user, { role: "assistant", content: "", weight: 0 }, user, answer] }),
  );
});

test("thoughts before an answer, in its own content, are refused where a template cuts them off", async () => {
  const cuts = await withTemplate(
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n" +
      "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
  );
  const thoughtful = { role: "assistant", content: "<think>\nclouds\n</think>\n\nrain" };
  for (const messages of [
    [user, thoughtful],
    [user, thoughtful, user, answer],
  ]) {
    refused({ messages }, "E_DATA_NOT_IN_TEMPLATE", /what message 2 thinks/, cuts);
  }
  // Nobody learns them, or they are empty: nothing is lost.
  for (const messages of [
    [user, { ...thoughtful, weight: 0 }, user, answer],
    [user, { role: "assistant", content: "<think>\n\n</think>\n\nrain" }],
  ]) {
    assert.ok(textOf({ messages }, cuts).includes("<|im_start|>assistant"));
  }
  assert.ok(textOf({ messages: [user, thoughtful] }).includes("<think>\nclouds\n</think>\n\nrain"));
});
