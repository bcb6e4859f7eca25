"""Writes a Hugging Face directory with seeded weights, and tokens.i32, little-endian int32 token ids,
from which both sides take their batches: the first rows x tokens of them, row by row.

    python bench/peers/make_model.py gpt2|gpt2-lively DIRECTORY
"""

import json
import sys

import numpy
import torch
import transformers

NUM_TOKENS = 1 << 16

# No dropout: both sides must compute the same.
GPT2 = transformers.GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)


def build(name: str) -> transformers.PreTrainedModel:
    if name == "gpt2":
        return transformers.GPT2LMHeadModel(GPT2)
    if name == "gpt2-lively":  # Greedy text of small random weights repeats its last token.
        model = transformers.GPT2LMHeadModel(GPT2)
        with torch.no_grad():
            for weight in model.transformer.h.parameters():
                if weight.dim() == 2:
                    weight.mul_(6)
        return model
    raise SystemExit(f"no model {name}")


def main(name: str, directory: str) -> None:
    torch.manual_seed(0)
    model = build(name)
    model.save_pretrained(directory)
    vocabulary = model.config.vocab_size
    # Without GPT-2's end of text.
    tokens = numpy.random.default_rng(0).integers(1000, vocabulary - 1, NUM_TOKENS, dtype="<i4")
    tokens.tofile(f"{directory}/tokens.i32")
    print(json.dumps({"values": {"parameters": model.num_parameters()}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
