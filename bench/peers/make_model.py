"""Writes a Hugging Face directory with seeded weights, and tokens.i32, little-endian int32 token ids,
from which both sides take their batches: the first rows x tokens of them, row by row. A classifier has
rows.jsonl too, labelled texts, and the tokenizer.json that reads them.

    python bench/peers/make_model.py gpt2|gpt2-lively|minilm DIRECTORY
"""

import json
import sys
from pathlib import Path

import numpy
import tokenizers
import torch
import transformers

NUM_TOKENS = 1 << 16
NUM_LABELLED_ROWS = 1024

# No dropout: both sides must compute the same.
GPT2 = transformers.GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)


# all-MiniLM-L6-v2 with a head: speed does not depend on the values.
MINILM = transformers.BertConfig(
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    id2label={0: "no", 1: "yes"},
    label2id={"no": 0, "yes": 1},
)


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
    if name == "minilm":
        return transformers.BertForSequenceClassification(MINILM)
    raise SystemExit(f"no model {name}")


def main(name: str, directory: str) -> None:
    torch.manual_seed(0)
    model = build(name)
    model.save_pretrained(directory)
    if name == "minilm":
        write_labelled_rows(Path(directory), model.config.vocab_size)
    vocabulary = model.config.vocab_size
    # Without GPT-2's end of text.
    tokens = numpy.random.default_rng(0).integers(1000, vocabulary - 1, NUM_TOKENS, dtype="<i4")
    tokens.tofile(f"{directory}/tokens.i32")
    print(json.dumps({"values": {"parameters": model.num_parameters()}}))


def write_labelled_rows(directory: Path, vocabulary: int) -> None:
    """Texts of 18 to 126 words, a token each, in two classes; the first is as long as any."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = special + [f"w{number}" for number in range(len(special), vocabulary)]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {name: number for number, name in enumerate(names)}, unk_token="[UNK]"
        )
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(directory / "tokenizer.json"))
    random = numpy.random.default_rng(0)
    with (directory / "rows.jsonl").open("w") as file:
        for row in range(NUM_LABELLED_ROWS):
            length = 126 if row == 0 else random.integers(18, 127)
            words = random.integers(len(special), vocabulary, length)
            label = "yes" if words[0] % 2 == 0 else "no"
            text = " ".join(names[word] for word in words)
            file.write(json.dumps({"text": text, "label": label}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
