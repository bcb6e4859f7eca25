"""Writes tests/fixtures/conversations: rows of conversations, and what transformers makes of them.

    python -m venv .venv && .venv/bin/pip install transformers==5.24.0 jinja2==3.1.6 pyarrow==26.0.1
    .venv/bin/python tests/reference/make_conversation_fixture.py

Rows have their tools and calls as objects, with arguments as JSON text, or in a Parquet table, whose
structures give every row the same keys. The templates are those of the folder, in the shapes of ChatML,
Qwen2.5, Qwen3, Llama 3.1, Hermes and Mistral; the tokenizer is tests/fixtures/tok. Before transformers
renders a row, arguments are parsed and empty keys of rows are taken out, as TRL does both.

Labels are the template's own marks (`return_assistant_tokens_mask`) where it has some. Elsewhere the
answer to messages[:i] is what messages[:i+1] adds to the prompt of messages[:i]; an answer that the whole
conversation writes in another way is an example of its own.
"""

import base64
import datetime
import json
import random
import re
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import transformers
from transformers.utils import chat_template_utils

fixtures = Path(__file__).resolve().parent.parent / "fixtures"
folder = fixtures / "conversations"
date = "2024-07-06"
end = "<|im_end|>"


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(date)


chat_template_utils.datetime = FixedDate

tokenizer = transformers.AutoTokenizer.from_pretrained(fixtures / "tok")
sources = {file.stem: file.read_text() for file in sorted((folder / "templates").glob("*.jinja"))}
templates = {name: text for name, text in sources.items() if not name.startswith("hermes-")}
templates["hermes"] = {
    "default": sources["hermes-default"],
    "tool_use": sources["hermes-tool_use"],
}

solid = ["rain", "Paris", "so", "東京", "ok", "yes", "theory", "7"]
random.seed(20240706)
choice = random.choice


class Number(str):
    """A number as it is written in a file: json.dumps would write another form of the same one."""


words = (
    "rain|Paris|São Paulo|东京|it's|\"so\"|a\\b|<b>&amp;</b>|{x}|100%|naïve|🙂|👩‍👩‍👧|é|ß|\t|\n|\n\n|  |"
    "`code()`|$1.50|e\u0301|\u200b|\u00a0|\u2028|ﬁ|İ|don’t|x_y|#|[1]|the|of|and|hello|theory"
).split("|")


def text(most=4):
    return " ".join([choice(words) for _ in range(random.randint(0, most - 1))] + [choice(solid)])


def speech():
    return choice(["", "", " ", "\n"]) + text() + choice([".", "!", "?", "\n", " ", ""])


whole = [0, 1, -7, 42, 2**31, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 1234567890123456789]
huge = [10**21, 10**30, -(10**25) + 1]
reals = [0.1, 20.0, -0.0, 1e5, 1e15, 1e16, 1e22, 1e-5, 1e-7, 1.5e300, 5e-324, 123456.789, -2.5e-3, 3.0]
written = "1E5 1e+22 20.00 1.0e-7 -0.0 -0 0.10 1e16 12345678901234567890.0 2.50 1e0 0e5".split()


def real():
    return choice(reals)


def value(depth=0):
    kind = random.randrange(9 if depth < 1 else 6)
    if kind == 0:
        return text(3)
    if kind == 1:
        return choice(whole + huge)
    if kind == 2:
        return real()
    if kind == 3:
        return Number(choice(written))
    if kind == 4:
        return choice([True, False])
    if kind == 5:
        return choice(["", "null", "None", "1", "tab\there"])
    if kind == 6:
        return [choice([value(depth + 1), None]) for _ in range(random.randrange(3))]
    return {key: value(depth + 1) for key in random.sample(["b", "a", "10", "2", "ключ", "type"], 3)}


def free_tools():
    """Tools as a person writes them, no two alike."""
    tools = []
    for name in random.sample(["rain", "find_it", "plan"], random.randint(1, 2)):
        names = random.sample(["town", "days", "10", "9", "deep", "köpfe"], random.randint(0, 3))
        properties = {}
        for key in names:
            spec = {"type": choice(["string", "integer", "number", "boolean"])}
            if random.random() < 0.5:
                spec["description"] = text(2)
            if random.random() < 0.3:
                spec["enum"] = [value(2) for _ in range(2)]
            if random.random() < 0.3:
                spec["default"] = value(2)
            if random.random() < 0.2:
                spec = {"type": "array", "items": {"type": "number"}}
            properties[key] = spec
        parameters = {"type": "object", "properties": properties}
        if names and random.random() < 0.6:
            parameters["required"] = names[:2]
        function = {"name": name, "description": text(3), "parameters": parameters}
        tools.append({"type": "function", "function": function})
    return tools


def free_call(tools):
    function = choice(tools)["function"]
    arguments = {key: value() for key in function["parameters"]["properties"]}
    return function["name"], arguments


# What one table can hold: every argument and property has one type.
table_arguments = {
    "town": lambda: text(2),
    "days": lambda: choice(whole),
    "precise": real,
    "sure": lambda: choice([True, False]),
    "tags": lambda: [choice([text(1), None]) for _ in range(random.randint(1, 3))],
    "spot": lambda: {k: v for k, v in [("lat", real()), ("note", choice([None, text(2)]))] if v is not None},
}
types = {"town": "string", "days": "integer", "precise": "number", "sure": "boolean", "tags": "array"}


def table_tools():
    tools = []
    for name in random.sample(["rain", "find_it", "plan"], random.randint(1, 2)):
        properties = {}
        for key in random.sample(list(types), random.randint(1, 4)):
            spec = {"type": types[key]}
            if random.random() < 0.5:
                spec["description"] = text(3)
            if key == "tags":
                spec["items"] = {"type": "string"}
            if key == "precise" and random.random() < 0.5:
                spec["maximum"] = real()
            properties[key] = spec
        parameters = {"type": "object", "properties": properties}
        if random.random() < 0.5:
            parameters["required"] = list(properties)[:1]
        function = {"name": name, "description": text(3), "parameters": parameters}
        tools.append({"type": "function", "function": function})
    return tools


def table_call(tools):
    function = choice(tools)["function"]
    keys = list(function["parameters"]["properties"]) + random.sample(["spot"], random.randrange(2))
    return function["name"], {key: table_arguments[key]() for key in keys}


def identifier():
    return "".join(choice("abcdefghijkmnpqrstuvwxyz0123456789") for _ in range(9))


def conversation(name, form, has_tools):
    """A row: rules of the template's kind decide what may stand in it."""
    tools = (table_tools() if form == "arrow" else free_tools()) if has_tools else None
    make_call = table_call if form == "arrow" else free_call
    thinks = name in ("qwen3", "marked", "values")
    # With some templates a call has no text beside it.
    says_beside = name in ("qwen25", "qwen3", "marked", "hermes", "values")
    most_calls = 1 if name == "llama31" else 2
    messages = []
    if random.random() < 0.4:
        messages.append({"role": "system", "content": text()})
    for _ in range(random.randint(1, 2)):
        messages.append({"role": "user", "content": speech()})
        if tools and random.random() < 0.8:
            calls = []
            for _ in range(random.randint(1, most_calls)):
                function, arguments = make_call(tools)
                call = {"type": "function", "function": {"name": function, "arguments": arguments}}
                if name == "mistral" or random.random() < 0.3:
                    call["id"] = identifier()
                calls.append(call)
            content = text() if says_beside and random.random() < 0.4 else choice(["", None])
            message = {"role": "assistant", "content": content, "tool_calls": calls}
            if name == "qwen3" and content is None:
                message["content"] = ""
            if thinks and random.random() < 0.5:
                message["reasoning_content"] = speech()
            messages.append(message)
            for call in calls:
                answer = {"role": "tool", "content": choice([speech(), json.dumps({"ok": 1.0, "é": None})])}
                if "id" in call:
                    answer["tool_call_id"] = call["id"]
                if random.random() < 0.3:
                    answer["name"] = call["function"]["name"]
                messages.append(answer)
        answer = {"role": "assistant", "content": speech()}
        if thinks and random.random() < 0.5:
            answer[choice(["reasoning_content", "reasoning", "thinking"])] = speech()
        messages.append(answer)
    row = {"messages": messages}
    if tools is not None:
        row["tools"] = tools
    return row


def dump(data, ascii_only):
    """JSON text in which the numbers are as they were written."""
    marked = re.compile(r'"@(-?[0-9.eE+-]+)@"')

    def mark(item):
        if isinstance(item, Number):
            return f"@{item}@"
        if isinstance(item, dict):
            return {key: mark(each) for key, each in item.items()}
        return [mark(each) for each in item] if isinstance(item, list) else item

    return marked.sub(r"\1", json.dumps(mark(data), ensure_ascii=ascii_only))


def with_text_arguments(row, ascii_only):
    for message in row["messages"]:
        for call in message.get("tool_calls") or []:
            call["function"]["arguments"] = dump(call["function"]["arguments"], ascii_only)
    return row


def without_empty_keys(data):
    if isinstance(data, dict):
        return {k: without_empty_keys(v) for k, v in data.items() if v is not None}
    return [without_empty_keys(each) for each in data] if isinstance(data, list) else data


def parsed(row):
    """The row as a program in Python would hand it to a template."""
    row = without_empty_keys(row)
    for message in row["messages"]:
        for call in message.get("tool_calls") or []:
            if isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return row["messages"], row.get("tools")


def common_prefix(a, b):
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


def labelled(whole_text, spans):
    """Token ids, and the labels: ids of the tokens from a span's first character to its last."""
    encoded = tokenizer(whole_text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    labels = [-100] * len(ids)
    for start, stop in spans:
        for i, (a, b) in enumerate(encoded["offset_mapping"]):
            if b > start and a < stop:
                labels[i] = ids[i]
    return {"text": whole_text, "ids": ids, "labels": labels}


def answer_start(name, prompt, answered, number):
    """Where the answer begins that is the `number`th one, counted from 1."""
    if name == "hermes":
        # It closes a tool's result in another way once an answer follows.
        return [m.end() for m in re.finditer(re.escape("<|im_start|>assistant\n"), answered)][number - 1]
    return common_prefix(prompt, answered)


def examples_of(name, messages, tools):
    def render(count, prompt=False):
        return tokenizer.apply_chat_template(
            messages[:count], tools=tools, tokenize=False, add_generation_prompt=prompt
        )

    whole_text = render(len(messages))
    ids = tokenizer.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"]
    template = tokenizer.chat_template
    if isinstance(template, str) and "{% generation %}" in template:
        encoded = tokenizer.apply_chat_template(
            messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True
        )
        labels = [i if m else -100 for i, m in zip(encoded["input_ids"], encoded["assistant_masks"])]
        return [{"text": whole_text, "ids": encoded["input_ids"], "labels": labels}]
    spans, alone = [], []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        answered = render(i + 1)
        number = sum(each["role"] == "assistant" for each in messages[: i + 1])
        start = answer_start(name, render(i, prompt=True), answered, number)
        stop = len(answered.rstrip()) if answered.rstrip().endswith(end) else len(answered)
        if whole_text.startswith(answered):
            spans.append((start, stop))
        else:
            alone.append(labelled(answered, [(start, stop)]))
    result = labelled(whole_text, spans)
    assert result["ids"] == ids
    return alone + ([result] if spans else [])


forms = ["object", "string", "arrow", "plain"]
cases = []
table_rows = []
for name, template in templates.items():
    tokenizer.chat_template = template
    per_form = {"chatml": [0, 0, 0, 12]}.get(name, [9, 9, 8, 4])
    for form, count in zip(forms, per_form):
        for _ in range(count):
            row = conversation(name, form, form != "plain")
            ascii_only = random.random() < 0.5
            case = {"template": name, "form": form}
            if form == "arrow":
                table_rows.append(row)
            else:
                if form == "string":
                    row = with_text_arguments(row, ascii_only)
                case["row"] = dump(row, ascii_only)
            cases.append(case)

table = pa.Table.from_pylist(table_rows)
pq.write_table(table, folder / "arrow.parquet")
of_table = iter(pq.read_table(folder / "arrow.parquet").to_pylist())
for case in cases:
    tokenizer.chat_template = templates[case["template"]]
    row = next(of_table) if case["form"] == "arrow" else json.loads(case["row"])
    case["examples"] = examples_of(case["template"], *parsed(row))

def ranges(labels):
    """Where labels are learnt, as [start, end)."""
    found = []
    for i, label in enumerate(labels):
        if label == -100:
            continue
        if found and found[-1][1] == i:
            found[-1][1] = i + 1
        else:
            found.append([i, i + 1])
    return found


for case in cases:
    for example in case["examples"]:
        example["learnt"] = ranges(example.pop("labels"))
        example["ids"] = base64.b64encode(struct.pack(f"<{len(example['ids'])}H", *example["ids"])).decode()

target = folder / "expected.json"
lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
target.write_text(
    f'{{"transformers":{json.dumps(transformers.__version__)},"date":{json.dumps(date)},"cases":[\n{lines}\n]}}\n'
)
print(target, len(cases), "rows", sum(len(case["examples"]) for case in cases), "examples", target.stat().st_size)
