"""Writes tests/fixtures/gguf-sentencepiece: SentencePiece tokenizers, and what llama.cpp's converter makes of them.

Usage: python make_gguf_sentencepiece_fixture.py LLAMA_CPP OUTPUT_DIR

LLAMA_CPP is a checkout of llama.cpp (the sdist of llama-cpp-python 0.3.36 has one in vendor/llama.cpp). Needs torch,
transformers, sentencepiece, protobuf and what its requirements name. The tokenizers are of tiny SentencePiece models,
as Llama and Gemma have them: tokenizer.json is transformers' conversion, and converted.json is what
convert_hf_to_gguf.py says of the model itself, with the ids that SentencePiece gives some texts.
"""

import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

llama_cpp, output = sys.argv[1:]
sys.path[:0] = [llama_cpp, str(Path(llama_cpp) / "gguf-py")]

import convert_hf_to_gguf  # noqa: E402
import sentencepiece  # noqa: E402
from gguf import GGUFReader  # noqa: E402
from transformers import GemmaTokenizer, LlamaTokenizer  # noqa: E402

TEXT = ["the cat sat on the mat", "hello there, hello world", "it is 1234 o'clock", "then they said"]
SAMPLES = ["the cat said hello", "12 cats, 345 mats!", " two  spaces\nand a line", "na\u00efve \u00e9 \u6771 \U0001f600", "x"]
# Rows of the embedding beyond the tokenizer's tokens.
PADDED_ROWS = 6
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "head_dim": 16,
}
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
CASES = {
    "llama": {
        "tokenizer": LlamaTokenizer,
        "train": {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
        "config": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"},
        "prefix": True,
        "added": ["<|user|>"],
    },
    "gemma": {
        "tokenizer": GemmaTokenizer,
        "train": {
            **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False},
            **{"bos_piece": "<bos>", "eos_piece": "<eos>"},
            "user_defined_symbols": ["<mask>", "<start_of_turn>", "<end_of_turn>", "\u2581\u2581", "\u2581\u2581\u2581", "<b>"],
        },
        "config": {
            **{"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "sliding_window": 8},
            **{"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16, "num_hidden_layers": 2},
            **{"attn_logit_softcapping": 5.5, "final_logit_softcapping": 3.5},
        },
        "prefix": False,
        "added": [],
    },
}
# Of the vocabulary; names that follow from the directory are left out.
KEPT = ("tokenizer.",)


def train(options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 5),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        **options,
    )
    return model.getvalue()


def token_json(token):
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return json.dumps({flag: getattr(token, flag) for flag in flags})


def value_of(field):
    value = field.contents()
    return [float(each) for each in value] if field.name.endswith(".scores") else value


for name, case in CASES.items():
    target = Path(output) / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        proto = train(case["train"])
        (directory / "tokenizer.model").write_bytes(proto)
        settings = {"add_bos_token": True, "add_eos_token": False}
        (directory / "tokenizer_config.json").write_text(
            json.dumps({**settings, "tokenizer_class": case["tokenizer"].__name__})
        )
        tokenizer = case["tokenizer"].from_pretrained(scratch)
        tokenizer.add_special_tokens({"additional_special_tokens": case["added"]})
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(target)
        # As tokenizers are published: transformers 5 leaves out what the converter goes by.
        roles = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token")
        named = {role: str(getattr(tokenizer, role)) for role in roles if getattr(tokenizer, role) is not None}
        added = tokenizer.added_tokens_decoder.items()
        settings["added_tokens_decoder"] = {str(id): json.loads(token_json(token)) for id, token in added}
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        (target / "tokenizer_config.json").write_text(json.dumps({**settings, **named}, indent=1) + "\n")
        for file in target.iterdir():
            shutil.copy(file, directory / file.name)
        config = {**COMMON, **case["config"], "vocab_size": len(tokenizer) + PADDED_ROWS}
        for place in (directory, target):
            (place / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        file = directory / "vocabulary.gguf"
        sys.argv[1:] = [scratch, "--outfile", str(file), "--vocab-only"]
        convert_hf_to_gguf.main()
        fields = GGUFReader(file).fields.items()
        metadata = {key: value_of(field) for key, field in sorted(fields) if key.startswith(KEPT)}
        processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        texts = [{"text": text, "ids": processor.encode(text)} for text in SAMPLES]
        (target / "converted.json").write_text(
            json.dumps({"metadata": metadata, "texts": texts}, ensure_ascii=False) + "\n"
        )
