"""Writes tests/fixtures/tiny-gguf-sentencepiece: a tied Llama GGUF with a SentencePiece tokenizer.

Usage: python make_sentencepiece_fixture.py OUTPUT_DIR   (needs numpy, gguf, sentencepiece)
The expected ids are SentencePiece's own.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import sentencepiece as spm
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter, TokenType

HIDDEN, FFN, HEADS, KV_HEADS = 32, 32, 2, 1
TEXT = ["the cat sat on the mat", "hello there, hello world", "it is 1234 o'clock", "then they said"]
SAMPLES = [
    "the cat said hello",
    "12 cats, 345 mats!",
    " two  spaces\nand a line",
    "naïve é 東 \U0001f600",
    "x",
]


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 5),
        model_writer=model,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
    )
    sp = spm.SentencePieceProcessor(model_proto=model.getvalue())
    vocab = sp.vocab_size()

    def kind(i: int) -> TokenType:
        if sp.is_unknown(i):
            return TokenType.UNKNOWN
        if sp.is_control(i):
            return TokenType.CONTROL
        return TokenType.BYTE if sp.is_byte(i) else TokenType.NORMAL

    writer = GGUFWriter(out / "tiny.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([sp.id_to_piece(i) for i in range(vocab)])
    writer.add_token_scores([sp.get_score(i) for i in range(vocab)])
    writer.add_token_types([int(kind(i)) for i in range(vocab)])
    writer.add_bos_token_id(sp.bos_id())
    writer.add_eos_token_id(sp.eos_id())
    writer.add_unk_token_id(sp.unk_id())
    head = HIDDEN // HEADS
    rng = np.random.default_rng(3)
    for name, shape in [
        ("token_embd", (vocab, HIDDEN)),
        ("output_norm", (HIDDEN,)),
        ("blk.0.attn_q", (HEADS * head, HIDDEN)),
        ("blk.0.attn_k", (KV_HEADS * head, HIDDEN)),
        ("blk.0.attn_v", (KV_HEADS * head, HIDDEN)),
        ("blk.0.attn_output", (HIDDEN, HEADS * head)),
        ("blk.0.ffn_gate", (FFN, HIDDEN)),
        ("blk.0.ffn_up", (FFN, HIDDEN)),
        ("blk.0.ffn_down", (HIDDEN, FFN)),
        ("blk.0.attn_norm", (HIDDEN,)),
        ("blk.0.ffn_norm", (HIDDEN,)),
    ]:
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float16), raw_dtype=Q.F16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    encoded = [{"text": text, "ids": sp.encode(text), "decoded": sp.decode(sp.encode(text))} for text in SAMPLES]
    (out / "tokens.json").write_text(json.dumps(encoded, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
