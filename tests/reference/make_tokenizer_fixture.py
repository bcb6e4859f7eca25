"""Writes tests/fixtures/tokenizer_ids.json: what Hugging Face's own library makes of some texts.

    python -m venv .venv && .venv/bin/pip install transformers==5.24.0 tokenizers==0.23.3
    .venv/bin/python tests/reference/make_tokenizer_fixture.py

The tokenizer is tests/fixtures/tok: byte-level BPE of 277 tokens with a ChatML template.
"""

import json
from pathlib import Path

import tokenizers
import transformers

fixtures = Path(__file__).resolve().parent.parent / "fixtures"
tokenizer = transformers.AutoTokenizer.from_pretrained(fixtures / "tok")

texts = [
    "",
    "Hello world!",
    "hello hello the theory of the thing",
    "  two  spaces\tand a tab \n\n\n newline runs \r\n",
    "It's what they'll say, isn't it? 1234567890 3.14",
    "naïve café — “quotes” … Ελληνικά Привет 你好 🙂👩‍👩‍👧",
    "e\u0301 combining and \u00e9 composed, a zero\u200bwidth space",
    "<|im_start|>user\nspecial tokens inside<|im_end|><|endoftext|>",
    "\u0000\u0001 control",
]
conversations = [
    [{"role": "user", "content": "hello"}],
    [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "1 < 2 & \"3\""},
        {"role": "assistant", "content": " so it is "},
        {"role": "user", "content": "{{ not a template }}"},
    ],
]

cases = []
for text in texts:
    ids = tokenizer.encode(text, add_special_tokens=False)
    cases.append(
        {
            "text": text,
            "ids": ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
        }
    )
chats = []
for messages in conversations:
    for add_generation_prompt in (False, True):
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        chats.append(
            {
                "messages": messages,
                "add_generation_prompt": add_generation_prompt,
                "text": text,
                "ids": tokenizer.encode(text, add_special_tokens=False),
            }
        )

result = {
    "transformers": transformers.__version__,
    "tokenizers": tokenizers.__version__,
    "vocab_size": len(tokenizer),
    "bos_token_id": tokenizer.bos_token_id,
    "eos_token_id": tokenizer.eos_token_id,
    "pad_token_id": tokenizer.pad_token_id,
    "cases": cases,
    "chats": chats,
}
target = fixtures / "tokenizer_ids.json"
target.write_text(json.dumps(result, ensure_ascii=True, indent=1) + "\n")
print(target, len(cases), "texts", len(chats), "chats")
