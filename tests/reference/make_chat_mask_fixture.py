"""Writes tests/fixtures/chat_masks.json: which tokens transformers says belong to an assistant's answers.

    python -m venv .venv && .venv/bin/pip install transformers==5.24.0 jinja2==3.1.6
    .venv/bin/python tests/reference/make_chat_mask_fixture.py

The tokenizer is tests/fixtures/tok. `unmarked` names the same template without its `{% generation %}`
tags: the method that compares prefixes has to find the same tokens there.
"""

import json
from pathlib import Path

import transformers

fixtures = Path(__file__).resolve().parent.parent / "fixtures"
tokenizer = transformers.AutoTokenizer.from_pretrained(fixtures / "tok")

inline = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
dashes = """{%- for m in messages -%}
    {%- if m.role == 'assistant' -%}
        {{- '<|im_start|>assistant\\n' -}}
        {%- generation -%}
            {{- m.content | trim -}}
            {{- '<|im_end|>' -}}
        {%- endgeneration -%}
        {{- '\\n' -}}
    {%- else -%}
        {{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
own_lines = """{% for m in messages %}
[{{ m.role }}]
  {% if m.role == 'assistant' %}
    {% generation %}
  {{ m.content }}<|im_end|>
    {% endgeneration %}
  {% else %}
{{ m.content }}<|im_end|>
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}
[assistant]
{% endif %}
"""
end_outside = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
templates = {"inline": inline, "dashes": dashes, "own_lines": own_lines, "end_outside": end_outside}

def user(content):
    return {"role": "user", "content": content}

def assistant(content):
    return {"role": "assistant", "content": content}

conversations = [
    [user("hello"), assistant("hello to you")],
    [
        {"role": "system", "content": "Be brief.\n"},
        user("the theory of 1 < 2 & \"3\"?"),
        assistant("it is so"),
        user("{{ not a template }} {% generation %}"),
        assistant("\n  spaces around  \n\nand lines"),
    ],
    [user("naïve café 你好 🙂👩‍👩‍👧"), assistant("“好的” 🙂 é e\u0301 👍🏽!"), user("?"), assistant("x")],
    [user(""), assistant("the answer to nothing"), user("again"), assistant("<|im_start|> inside")],
    [user("no answer here")],
]

cases = []
for name, template in templates.items():
    tokenizer.chat_template = template
    for messages in conversations:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        encoded = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        cases.append(
            {
                "template": name,
                "messages": messages,
                "text": text,
                "ids": encoded["input_ids"],
                "mask": encoded["assistant_masks"],
            }
        )

result = {
    "transformers": transformers.__version__,
    "templates": templates,
    "unmarked": {
        "inline": inline.replace("{% generation %}", "").replace("{% endgeneration %}", ""),
        "dashes": dashes.replace("{%- generation -%}", "{%- if true -%}").replace(
            "{%- endgeneration -%}", "{%- endif -%}"
        ),
    },
    "cases": cases,
}
target = fixtures / "chat_masks.json"
target.write_text(json.dumps(result, ensure_ascii=True, indent=1) + "\n")
print(target, len(cases), "cases", sum(sum(case["mask"]) for case in cases), "tokens of answers")
