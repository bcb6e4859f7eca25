"""Makes tests/fixtures/dropout.json: what transformers and peft compute in training, with masks of Lockstep.

Usage: python make_dropout_fixture.py FIXTURES_DIR

Needs torch, transformers, peft and numpy. The n-th call of torch's dropout that drops anything gets the mask of
place n: bits of Philox4x32-10 (Salmon et al. 2011) with the key (seed, n) from the counter
(0, step, group, micro-batch) on, the lower half of a word first. So the places, their order, and what is
dropped there are those of transformers' code. Of each gradient the norm is recorded, and its product with the
cosines of 1, 2, 3 ...
"""

import json
import sys
from pathlib import Path

import numpy
import torch
from peft import PeftConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

SEED = 4_000_000_007
COORDINATES = {"step": 3, "group": 1, "index": 2}

# Multiples of 2^-16, so that torch's rate is the one that masks have.
CASES = {
    "gpt2": (
        {"embeddings": 0.125, "attention": 0.25, "residual": 0.375},
        {"embd_pdrop": 0.125, "attn_pdrop": 0.25, "resid_pdrop": 0.375},
    ),
    "llama-gqa-untied": ({"attention": 0.25}, {"attention_dropout": 0.25}),
    "gemma2": ({"attention": 0.25}, {"attention_dropout": 0.25}),
    "phi3-partial": (
        {"attention": 0.25, "residual": 0.375},
        {"attention_dropout": 0.25, "resid_pdrop": 0.375, "embd_pdrop": 0.5},
    ),
    "bert-seqcls": (
        {"embeddings": 0.125, "attention": 0.25, "residual": 0.125, "classifier": 0.375},
        {
            "hidden_dropout_prob": 0.125,
            "attention_probs_dropout_prob": 0.25,
            "classifier_dropout": 0.375,
        },
    ),
    "roberta-seqcls": (
        {"embeddings": 0.125, "attention": 0.25, "residual": 0.125, "classifier": 0.125},
        {"hidden_dropout_prob": 0.125, "attention_probs_dropout_prob": 0.25},
    ),
    "distilbert-seqcls": (
        {"embeddings": 0.125, "attention": 0.25, "residual": 0.125, "classifier": 0.375},
        {"dropout": 0.125, "attention_dropout": 0.25, "seq_classif_dropout": 0.375},
    ),
}
ADAPTERS = {
    "gpt2": (0.25, {"adapters": 0.25, "residual": 0.375}, {"resid_pdrop": 0.375}),
    "bert-seqcls": (0.25, {"adapters": 0.25}, {}),
    "llama-gqa-untied": (0.25, {"adapters": 0.25}, {}),
}
ALL_KEYS = sorted({key for _, keys in CASES.values() for key in keys})


def philox(key: tuple[int, int], words: tuple[int, int, int], count: int) -> numpy.ndarray:
    low = numpy.uint64(0xFFFFFFFF)
    shift = numpy.uint64(32)
    groups = (count + 3) // 4
    c = [numpy.arange(groups, dtype=numpy.uint64)]
    c += [numpy.full(groups, word, dtype=numpy.uint64) for word in words]
    k0, k1 = key
    for _ in range(10):
        product0 = c[0] * numpy.uint64(0xD2511F53)
        product1 = c[2] * numpy.uint64(0xCD9E8D57)
        c = [
            (product1 >> shift) ^ c[1] ^ numpy.uint64(k0),
            product1 & low,
            (product0 >> shift) ^ c[3] ^ numpy.uint64(k1),
            product0 & low,
        ]
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return numpy.stack(c, axis=1).reshape(-1)[:count].astype(numpy.uint32)


class Masks:
    """Stands for torch.nn.functional.dropout."""

    def __init__(self) -> None:
        self.places = 0

    def __call__(self, x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        words = philox((SEED, self.places), tuple(COORDINATES.values()), (x.numel() + 1) // 2)
        self.places += 1
        halves = words.view("<u2")[: x.numel()]
        kept = torch.from_numpy((halves >= round(p * 65536)).astype(numpy.float32))
        return x * kept.reshape(x.shape) / (1 - p)


def load(directory: Path, keys: dict):
    config = AutoConfig.from_pretrained(directory)
    for key in ALL_KEYS:
        if hasattr(config, key):
            setattr(config, key, keys.get(key, None if key == "classifier_dropout" else 0.0))
    is_classifier = config.architectures[0].endswith("ForSequenceClassification")
    kind = AutoModelForSequenceClassification if is_classifier else AutoModelForCausalLM
    return kind.from_pretrained(
        directory, config=config, dtype=torch.float32, attn_implementation="eager"
    )


def measure(model, directory: Path, rates: dict) -> dict:
    case = json.loads((directory / "case.json").read_text())
    batch = {
        name: torch.tensor(case[name]) for name in ("input_ids", "attention_mask", "labels")
    }
    evaluation_loss = model.eval()(**batch).loss.item()
    masks = Masks()
    torch.nn.functional.dropout = masks
    loss = model.train()(**batch).loss
    loss.backward()
    gradients = {}
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        gradient = value.grad.double().reshape(-1)
        cosines = torch.cos(torch.arange(1, gradient.numel() + 1, dtype=torch.float64))
        plain = name.replace(".default.", ".").replace(".modules_to_save", "")
        plain = plain.replace("base_model.model.", "")
        gradients[plain] = [gradient.norm().item(), (gradient @ cosines).item()]
    return {
        "rates": rates,
        "places": masks.places,
        "loss": loss.item(),
        "evaluationLoss": evaluation_loss,
        "gradients": gradients,
    }


def main(fixtures: Path) -> None:
    models = fixtures / "models"
    out = {"seed": SEED, "coordinates": COORDINATES, "models": {}, "adapters": {}}
    for name, (rates, keys) in CASES.items():
        model = load(models / name, keys)
        out["models"][name] = measure(model, models / name, rates)
    for name, (rate, rates, keys) in ADAPTERS.items():
        directory = fixtures / "lora" / name
        config = PeftConfig.from_pretrained(directory)
        config.lora_dropout = rate
        base = load(models / name, keys)
        model = PeftModel.from_pretrained(base, directory, config=config, is_trainable=True)
        out["adapters"][name] = measure(model, models / name, rates)
    (fixtures / "dropout.json").write_text(json.dumps(out, indent=1) + "\n")
    for part in ("models", "adapters"):
        for name, case in out[part].items():
            print(part, name, case["places"], case["loss"], case["evaluationLoss"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
