"""Makes tests/fixtures/embeddings: small base models without a head, and vectors of texts.

Usage: python make_embedding_fixture.py OUT_DIR

Needs torch, transformers and safetensors. Each directory holds a model and texts.json: token ids of
three texts of different lengths, and for each the mean of its last hidden states and its first one,
scaled to length 1, each text computed alone.
"""

import json
import sys
from pathlib import Path

import torch
import transformers as T

SIZES = dict(
    vocab_size=48,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=40,
)
MODELS = {
    "bert": T.BertModel(T.BertConfig(**SIZES)),
    "roberta": T.RobertaModel(T.RobertaConfig(**SIZES), add_pooling_layer=False),
    "llama": T.LlamaModel(T.LlamaConfig(**SIZES, num_key_value_heads=1, head_dim=8)),
}


def main(out: Path) -> None:
    torch.manual_seed(5)
    for name, model in MODELS.items():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
        model.eval().save_pretrained(out / name)
        texts = []
        for length in (5, 19, 2):
            tokens = torch.randint(3, SIZES["vocab_size"], (1, length))
            with torch.no_grad():
                hidden = model(input_ids=tokens).last_hidden_state[0]
            unit = lambda x: torch.nn.functional.normalize(x, dim=0).tolist()
            texts.append(
                {"tokens": tokens[0].tolist(), "mean": unit(hidden.mean(0)), "cls": unit(hidden[0])}
            )
        (out / name / "texts.json").write_text(json.dumps(texts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
