"""Makes tests/fixtures/methods/bitfit-*.safetensors: steps of torch over a model's biases.

Usage: python make_bitfit_fixture.py MODELS_DIR OUT_DIR

Needs torch and transformers.
"""

import sys
from pathlib import Path

import torch
from method_steps import read_case, steps
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

CASES = {
    "gpt2": AutoModelForCausalLM,
    "llama-biases-linear": AutoModelForCausalLM,
    "bert-seqcls": AutoModelForSequenceClassification,
}


def main(models: Path, out: Path) -> None:
    for name, head in CASES.items():
        model = head.from_pretrained(models / name, dtype=torch.float32)
        for key, value in model.named_parameters():
            value.requires_grad_(key.endswith(".bias"))
        found = steps(model, read_case(models / name), lambda key: key)
        save_file(found, out / f"bitfit-{name}.safetensors")
        print(name, found["sgd.losses"].tolist(), found["adamw.losses"].tolist())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
