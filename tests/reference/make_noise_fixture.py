"""Makes tests/fixtures/noise.json: what transformers and peft compute under NEFTune, with noise of Lockstep.

Usage: python make_noise_fixture.py FIXTURES_DIR   (needs torch, transformers, peft and numpy)

transformers' own hook adds the noise, where it says so and of its magnitude; only the numbers between -1 and 1
are those of Lockstep: bits of Philox4x32-10 with the key (seed, place) from the counter (0, step, group,
micro-batch) on, 16 each, the lower half of a word first. The place counts on with those of dropout.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
from make_dropout_fixture import COORDINATES, SEED, load, measure, philox
from peft import PeftModel
from transformers.integrations.neftune import activate_neftune

ALPHA = 5.0
# With dropout behind it, embeddings that are scaled, and an encoder.
CASES = {
    "gpt2": ({"embeddings": 0.125}, {"embd_pdrop": 0.125}),
    "gemma2": ({}, {}),
    "distilbert-seqcls": ({}, {}),
    "bert-seqcls": (
        {"embeddings": 0.125, "residual": 0.125, "classifier": 0.125},
        {"hidden_dropout_prob": 0.125},
    ),
}
ADAPTERS = {"llama-gqa-untied": ({}, {})}


def noise(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Stands for torch.Tensor.uniform_."""
    assert low == -high
    masks = torch.nn.functional.dropout
    words = philox((SEED, masks.places), tuple(COORDINATES.values()), (tensor.numel() + 1) // 2)
    masks.places += 1
    halves = words.view("<u2")[: tensor.numel()].astype(numpy.float64)
    unit = torch.from_numpy((halves + 0.5) / 32768 - 1).reshape(tensor.shape)
    return tensor.copy_(unit * high)


def measured(model, directory: Path, rates: dict) -> dict:
    activate_neftune(model, ALPHA)
    drawn, torch.Tensor.uniform_ = torch.Tensor.uniform_, noise
    try:
        return measure(model, directory, rates)
    finally:
        torch.Tensor.uniform_ = drawn


def main(fixtures: Path) -> None:
    models = fixtures / "models"
    out = {
        "seed": SEED,
        "coordinates": COORDINATES,
        "noiseAlpha": ALPHA,
        "models": {},
        "adapters": {},
    }
    for name, (rates, keys) in CASES.items():
        out["models"][name] = measured(load(models / name, keys), models / name, rates)
    for name, (rates, keys) in ADAPTERS.items():
        base = load(models / name, keys)
        model = PeftModel.from_pretrained(base, fixtures / "lora" / name, is_trainable=True)
        out["adapters"][name] = measured(model, models / name, rates)
    (fixtures / "noise.json").write_text(json.dumps(out, indent=1) + "\n")
    for part in ("models", "adapters"):
        for name, case in out[part].items():
            print(part, name, case["places"], case["loss"], case["evaluationLoss"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
