"""Writes tests/fixtures/text_tokens.json: what transformers makes of texts and of prompts with completions.

    python -m venv .venv && .venv/bin/pip install transformers==5.24.0 tokenizers==0.23.3
    .venv/bin/python tests/reference/make_text_tokens_fixture.py

`base` of a variant is the tokenizer of bytes below, which is that of tests/support/case-job.ts, or a folder
of tests/fixtures/tokenizers; `changes` are laid over its tokenizer.json, `added` is put behind its added
tokens, and `files` stand beside it. A text row has the ids of tokenizer(text); a row with a completion those
of tokenizer(prompt + completion), with the end token where none is there, and the place of the first token
that is learnt.
"""

import json
import random
import tempfile
from pathlib import Path

import transformers
from transformers import AutoTokenizer

fixtures = Path(__file__).resolve().parent.parent / "fixtures"
seed = 20261128


def token(content, special=True, **flags):
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": content, **plain, "special": special, **flags}


def byte_tokenizer():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in range(256)]
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, **token(content)} for id, content in enumerate(specials)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": {piece: id for id, piece in enumerate(specials + letters)}, "merges": [],
        },
    }


bytes_tokenizer = byte_tokenizer()


def around(before, after, ids):
    """A post-processor that writes tokens before and behind a text."""
    special = lambda name, type_id=0: {"SpecialToken": {"id": name, "type_id": type_id}}
    single = [*map(special, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(special, after)]
    pair = [*single, *[special(name, 1) for name in before], {"Sequence": {"id": "B", "type_id": 1}},
            *[special(name, 1) for name in after]]
    names = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in {*before, *after}}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": names}


def config(**changes):
    return {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>", "model_max_length": 1024, **changes}


byte_ids = {"<|endoftext|>": 0, "<|im_end|>": 2, "<s>": 3}
begin = around(["<s>"], [], byte_ids)
turns = [token("<|turn|>"), token("<|turn_end|>")]
turn_config = config(eos_token="<|turn_end|>", added_tokens_decoder={"260": turns[0], "261": turns[1]})
chat_template = (fixtures / "cases/24-added-tokens-beside-tokenizer-json/chat_template.jinja").read_text()

variants = {
    "bytes": {"base": "bytes", "files": {"tokenizer_config.json": config()}},
    "bytes, <s>": {
        "base": "bytes", "changes": {"post_processor": begin},
        "files": {"tokenizer_config.json": config(bos_token="<s>")},
    },
    "bytes, <s> without a role": {
        "base": "bytes", "changes": {"post_processor": begin},
        "files": {"tokenizer_config.json": config(bos_token=None)},
    },
    "add_bos_token beside tokenizer.json": {
        "base": "bytes",
        "files": {"tokenizer_config.json": config(
            bos_token="<s>", tokenizer_class="LlamaTokenizer", add_bos_token=True, add_eos_token=True)},
    },
    "add_bos_token: false beside a post-processor": {
        "base": "bytes", "changes": {"post_processor": begin},
        "files": {"tokenizer_config.json": config(bos_token="<s>", add_bos_token=False)},
    },
    "bytes, <s> and an end": {
        "base": "bytes", "changes": {"post_processor": around(["<s>"], ["<|im_end|>"], byte_ids)},
        "files": {"tokenizer_config.json": config(bos_token="<s>")},
    },
    "bytes, the separator as end": {
        "base": "bytes", "changes": {"post_processor": around(["<s>", "<s>"], ["<|endoftext|>"], byte_ids)},
        "files": {"tokenizer_config.json": config(bos_token="<s>")},
    },
    "byte-level BPE, a sequence of processors": {
        "base": "byte_level_bpe",
        "changes": {"post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            around(["<|endoftext|>"], [], {"<|endoftext|>": 0})]}},
        "files": {"tokenizer_config.json": config(bos_token="<|endoftext|>", eos_token="<|endoftext|>")},
    },
    "unigram, <s>": {
        "base": "unigram", "changes": {"post_processor": around(["<s>"], [], {"<s>": 1})},
        "files": {"tokenizer_config.json": config(bos_token="<s>", eos_token="</s>", pad_token="</s>")},
    },
    "word pieces": {
        "base": "wordpiece",
        "files": {"tokenizer_config.json": config(
            bos_token=None, eos_token=None, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
            sep_token="[SEP]", mask_token="[MASK]")},
    },
    "both turns beside tokenizer.json": {
        "base": "bytes",
        "files": {"tokenizer_config.json": turn_config, "added_tokens.json": {"<|turn|>": 260, "<|turn_end|>": 261}},
    },
    "the opening turn beside tokenizer.json": {
        "base": "bytes", "added": [{"id": 260, **turns[1]}],
        "files": {"tokenizer_config.json": config(
            eos_token="<|turn_end|>", added_tokens_decoder={"260": turns[1], "261": turns[0]})},
    },
    "added_tokens.json and special_tokens_map.json": {
        "base": "bytes", "changes": {"normalizer": {"type": "Lowercase"}, "post_processor": begin},
        "files": {
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_start|>"},
            "special_tokens_map.json": {
                "bos_token": {**token("<s>"), "normalized": True}, "eos_token": "<|turn_end|>",
                "additional_special_tokens": ["<|Turn|>", "<Image>"]},
            "added_tokens.json": {"<|turn_end|>": 261, "<|Turn|>": 260, "Word": 262},
        },
    },
    "flags": {
        "base": "bytes",
        "files": {"tokenizer_config.json": config(added_tokens_decoder={
            "260": token("<|turn|>", lstrip=True, rstrip=True),
            "261": token("Word", special=False, single_word=True, normalized=True),
            "262": token("<Image>", special=False, rstrip=True),
            "2": token("<|im_end|>", rstrip=True)})},
    },
    "roles and lists": {
        "base": "bytes",
        "files": {"tokenizer_config.json": config(
            pad_token="<Image>", unk_token={"__type": "AddedToken", **token("Word", special=False, lstrip=True)},
            image_token="<|turn|>",
            additional_special_tokens=["<|turn_end|>", {"__type": "AddedToken", **token("<|Turn|>", rstrip=True)}])},
    },
    "a mapping of roles": {
        "base": "bytes", "changes": {"post_processor": begin},
        "files": {"tokenizer_config.json": config(
            bos_token="<s>", extra_special_tokens={"image_token": "<Image>", "turn_token": "<|turn|>"})},
    },
}
whole = {"bytes", "bytes, <s>", "both turns beside tokenizer.json"}
# What a completion means where a separator or [SEP] follows each text is not asked.
texts_only = {"bytes, the separator as end", "word pieces"}

pieces = [
    "    def f(x):\n        return x\n", "\tx = 1\n", "if a:\r\n\tb()\r\n", "\n\n\n", "  ", "\t\t", "\r", " \n", "\u00a0", "\u3000",
    "\u2028", "\ufeff", "\u200b", "Word", "word", "sWord", " Word ", "the state ", "naïve café ", "e\u0301", "你好，世界 ", "Привет ",
    "שלום ", "한국어 ", "🙂", "👩‍👩‍👧", "🇩🇪 ", "👍🏽", "𝒳", "\U00020000", "\x7f", "3.14159 ", "12,000", "'s ", "a.b?c=d&e ", "{\"k\": [1, null]}",
    "<|im_end|>", " <|im_end|>\n", "<|endoftext|>", "<s>", "<|turn|>", " <|turn|>  x", "<|turn_end|>\n", "<|Turn|> ", "<Image>  ",
    "<IMAGE>", "</s>", "[SEP]", "...", "-" * 9, "x" * 17,
]
source = random.Random(seed)


def text(most):
    while True:
        made = "".join(source.choice(pieces) for _ in range(source.randint(1, most)))
        # No text begins with a token that is put before it; one of blanks alone is left out.
        if made.strip() != "" and not made.lstrip("\ufeff").startswith(("<s>", "<|endoftext|>", "[CLS]")):
            return made


rows = [{"text": text(6)} for _ in range(150)]
rows += [{"prompt": text(4), "completion": text(3)} for _ in range(90)]
rows += [{"text": "end<|endoftext|>"}, {"prompt": "a", "completion": "b<|im_end|>"}, {"prompt": "", "completion": "c"}]


def learnt_from(encoding, prompt, whole_text):
    places = (encoding.char_to_token(i) for i in range(len(prompt), len(whole_text)))
    return next((place for place in places if place is not None), None)


def expected(tokenizer, row):
    if "text" in row:
        return {"ids": tokenizer(row["text"])["input_ids"]}
    whole_text = row["prompt"] + row["completion"]
    encoding = tokenizer(whole_text)
    ids = encoding["input_ids"]
    start = learnt_from(encoding, row["prompt"], whole_text)
    # A completion with an end of its own has one end here, however many the tokenizer writes.
    if start is None or ids[-2:] == 2 * [tokenizer.eos_token_id]:
        return None
    if ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    return {"ids": ids, "start": start}


chats = [json.loads(line) for line in
         (fixtures / "cases/24-added-tokens-beside-tokenizer-json/chats.jsonl").read_text().splitlines()]
result = {"transformers": transformers.__version__, "seed": seed, "bytes": bytes_tokenizer, "rows": rows, "variants": {}}
for name, variant in variants.items():
    base = variant["base"]
    definition = bytes_tokenizer if base == "bytes" else json.loads(
        (fixtures / "tokenizers" / base / "tokenizer.json").read_text())
    definition = {**definition, **variant.get("changes", {})}
    definition["added_tokens"] = [*definition["added_tokens"], *variant.get("added", [])]
    with tempfile.TemporaryDirectory() as place:
        for file, content in {
            **variant["files"], "tokenizer.json": definition, "config.json": {"model_type": "llama"},
        }.items():
            (Path(place) / file).write_text(json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(place)
        of_rows = {}
        for index, row in enumerate(rows):
            if name not in whole and index % 6 != len(result["variants"]) % 6 and index < 240:
                continue
            if name in texts_only and "text" not in row:
                continue
            made = expected(tokenizer, row)
            if made is not None:
                of_rows[index] = made
        with_turns = []
        if tokenizer.eos_token == "<|turn_end|>" and "normalizer" not in variant.get("changes", {}):
            tokenizer.chat_template = chat_template
            for chat in chats:
                rendered = tokenizer.apply_chat_template(chat["messages"], tokenize=False)
                with_turns.append(tokenizer(rendered, add_special_tokens=False)["input_ids"])
        result["variants"][name] = {
            **variant, "vocab_size": len(tokenizer),
            "added_vocab": dict(sorted(tokenizer.get_added_vocab().items(), key=lambda pair: pair[1])),
            "special": sorted({*tokenizer.all_special_ids}),
            "eos_token_id": tokenizer.eos_token_id, "rows": of_rows, "chats": with_turns,
        }
        print(name, type(tokenizer).__name__, len(of_rows), "rows", len(tokenizer), "tokens")

target = fixtures / "text_tokens.json"
lines = json.dumps(result, ensure_ascii=True, separators=(",", ":"))
target.write_text(lines.replace('},"', '},\n"') + "\n")
print(target, target.stat().st_size, "bytes")
