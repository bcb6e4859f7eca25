"""Writes tests/fixtures/tiny-gguf: a small Llama GGUF in all supported types, and what it must become.

Usage: python make_gguf_fixture.py OUTPUT_DIR   (needs numpy, gguf, safetensors, tokenizers)
The weights are random; quantisation and dequantisation are the `gguf` package's own, and the rotary
row order is that of llama.cpp's converter (`LlamaModel.permute`).
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM = 64, 96, 4, 2, 16
TEXT = ["the cat sat on the mat", "hello there, hello world", "it is 1234 o'clock"] * 3
SAMPLES = ["the cat said hello", "12 cats, 345 mats!", "<|start|>it is\n\n é<|end|>", " x  y"]


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    rows = weights.shape[0]
    shape = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    tokenizer = train_tokenizer()
    vocab = tokenizer.get_vocab_size()
    writer = GGUFWriter(out / "tiny.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(50000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(vocab)])
    writer.add_token_types([3, 3] + [1] * (vocab - 2))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    layer, block = "model.layers.0", "blk.0"
    tensors = [
        ("token_embd", "model.embed_tokens", (vocab, HIDDEN), Q.Q8_0, 0),
        ("output", "lm_head", (vocab, HIDDEN), Q.BF16, 0),
        ("output_norm", "model.norm", (HIDDEN,), Q.F32, 0),
        (f"{block}.attn_q", f"{layer}.self_attn.q_proj", (q, HIDDEN), Q.Q4_1, HEADS),
        (f"{block}.attn_k", f"{layer}.self_attn.k_proj", (kv, HIDDEN), Q.Q4_0, KV_HEADS),
        (f"{block}.attn_v", f"{layer}.self_attn.v_proj", (kv, HIDDEN), Q.F16, 0),
        (f"{block}.attn_output", f"{layer}.self_attn.o_proj", (HIDDEN, q), Q.Q4_1, 0),
        (f"{block}.ffn_gate", f"{layer}.mlp.gate_proj", (FFN, HIDDEN), Q.Q4_0, 0),
        (f"{block}.ffn_up", f"{layer}.mlp.up_proj", (FFN, HIDDEN), Q.Q8_0, 0),
        (f"{block}.ffn_down", f"{layer}.mlp.down_proj", (HIDDEN, FFN), Q.Q4_1, 0),
        (f"{block}.attn_norm", f"{layer}.input_layernorm", (HIDDEN,), Q.F32, 0),
        (f"{block}.ffn_norm", f"{layer}.post_attention_layernorm", (HIDDEN,), Q.F32, 0),
    ]
    expected = {}
    for source, name, shape, kind, heads in tensors:
        weights = rng.standard_normal(shape, dtype=np.float32) * 0.3
        stored = quantize(permute(weights, heads) if heads else weights, kind)
        writer.add_tensor(f"{source}.weight", stored, raw_dtype=kind)
        values = dequantize(stored, kind).reshape(shape)
        if heads:  # Rows (head, pair, half) back to (head, half, pair).
            values = values.reshape(heads, HEAD_DIM // 2, 2, -1).swapaxes(1, 2).reshape(shape)
        expected[f"{name}.weight"] = np.ascontiguousarray(values, dtype=np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, out / "expected.safetensors", metadata={"format": "pt"})
    encoded = [{"text": text, "ids": tokenizer.encode(text).ids} for text in SAMPLES]
    (out / "tokens.json").write_text(json.dumps(encoded, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
