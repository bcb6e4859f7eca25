"""Checks a directory made by `lockstep import-gguf` against independent readers.

Usage: python check_import.py DIR GGUF
Needs torch, transformers, tokenizers and gguf. Exits 1 when something differs.

Checked: every weight is the same float32, bit for bit, as the dequantisation of the `gguf` package
with the rotary order undone by NumPy; transformers loads the directory without missing or
unexpected keys; its logits for a fixed prompt are finite and the greedy text is printed for a
person to read; the tokenizer round-trips text, splits digits, and keeps special tokens whole.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

SAMPLES = [
    "Hello, world!",
    "In 1865 there were 1234567 people; 3.14159 is close to pi.",
    "  two  spaces,\ttab,\n\nnew lines \n",
    "naïve café, 東京 and \U0001f600, it's we'll I'm",
    "def f(x):\n    return x ** 2  # squares\n",
]


def hf_name(name: str) -> str:
    if name in TOP:
        return TOP[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.{kind}"


TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def check_weights(directory: Path, reader: GGUFReader, config: dict) -> int:
    head_dim = config["head_dim"]
    bad = 0
    seen = set()
    with safe_open(directory / "model.safetensors", "np") as stored:
        for tensor in reader.tensors:
            if tensor.name == "rope_freqs.weight":
                continue
            name = hf_name(tensor.name)
            seen.add(name)
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            values = values.reshape([int(d) for d in tensor.shape][::-1])
            if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
                heads = values.shape[0] // head_dim
                rest = values.shape[1:]
                values = values.reshape(heads, head_dim // 2, 2, *rest).swapaxes(1, 2)
                values = values.reshape(heads * head_dim, *rest)
            ours = stored.get_tensor(name)
            if ours.shape != values.shape or ours.tobytes() != values.tobytes():
                print(f"DIFFERS {name}")
                bad += 1
        extra = set(stored.keys()) - seen
    if extra:
        print(f"EXTRA {sorted(extra)}")
    print(f"weights: {len(seen)} tensors, {bad} differ, {len(extra)} extra")
    return bad + len(extra)


def check_tokenizer(directory: Path, reader: GGUFReader) -> int:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    bad = 0

    def expect(condition: bool, what: str) -> None:
        nonlocal bad
        if not condition:
            print(f"TOKENIZER {what}")
            bad += 1

    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    for i in range(0, len(tokens), 97):
        expect(tokenizer.convert_ids_to_tokens(i) == tokens[i], f"id {i} is not {tokens[i]!r}")
    for text in SAMPLES:
        ids = tokenizer(text)["input_ids"]
        back = tokenizer.decode(ids, skip_special_tokens=True)
        expect(back == text, f"{text!r} came back as {back!r}")
        print(f"{ids} {text!r}")
    for i, kind in enumerate(types):
        if kind == 3:
            expect(tokenizer(f"a{tokens[i]}b")["input_ids"].count(i) == 1, f"{tokens[i]} is cut")
    if reader.fields["tokenizer.ggml.pre"].contents() == "smollm":
        pieces = tokenizer.convert_ids_to_tokens(tokenizer("1865")["input_ids"])
        expect(pieces == list("1865"), f"1865 was cut into {pieces}")
    if "tokenizer.chat_template" in reader.fields:
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
        )
        print(repr(chat))
    for key in ("bos", "eos"):
        field = reader.fields.get(f"tokenizer.ggml.{key}_token_id")
        if field is not None:
            expect(getattr(tokenizer, f"{key}_token_id") == field.contents(), f"{key} token")
    print(f"tokenizer: {type(tokenizer).__name__}, {bad} differ")
    return bad


def check_model(directory: Path) -> int:
    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True
    )
    bad = len(info["missing_keys"]) + len(info["unexpected_keys"]) + len(info["mismatched_keys"])
    if bad:
        print(f"LOADING {info}")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        logits = model(**prompt).logits[0]
        output = model.generate(**prompt, max_new_tokens=40, do_sample=False)
    print("logits of the last position:", [round(v, 4) for v in logits[-1][:8].tolist()])
    print("best:", tokenizer.convert_ids_to_tokens(logits[-1].topk(5).indices.tolist()))
    print("text:", repr(tokenizer.decode(output[0])))
    return bad + int(not torch.isfinite(logits).all())


def main() -> None:
    directory, gguf = Path(sys.argv[1]), sys.argv[2]
    config = json.loads((directory / "config.json").read_text())
    reader = GGUFReader(gguf)
    bad = check_weights(directory, reader, config)
    bad += check_tokenizer(directory, reader)
    bad += check_model(directory)
    print("same" if bad == 0 else f"{bad} differences")
    sys.exit(0 if bad == 0 else 1)


if __name__ == "__main__":
    main()
