"""Makes tests/fixtures/methods/unfreezing-*.safetensors: steps of torch's AdamW while more and more is unfrozen.

Usage: python make_unfreezing_fixture.py MODELS_DIR OUT_DIR

The optimizer has every parameter from the start and is kept; `requires_grad` decides who has a gradient. What is
unfrozen begins with Adam's step 1 then, as torch counts by parameter. Needs torch and transformers.
"""

import sys
from pathlib import Path

import torch
from method_steps import read_case
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

NUM_STEPS = 10
INTERVAL = 2
RATE = 1e-3
MAX_NORM = 0.5
# Elements that the file has of each parameter.
NUM_KEPT = 1024

# What opens every two updates, by parts of names, from the first update on.
CASES = {
    # The head is the embedding table: the last layer opens with the norm above it.
    "gpt2": (AutoModelForCausalLM, [[".h.1.", "ln_f"], [".h.0."], ["wte", "wpe"]]),
    "llama-gqa-untied": (
        AutoModelForCausalLM,
        [["lm_head", "model.norm"], ["layers.1."], ["layers.0."], ["embed_tokens"]],
    ),
    "bert-seqcls": (
        AutoModelForSequenceClassification,
        [["classifier", "pooler"], ["layer.1."], ["layer.0."], ["embeddings"]],
    ),
}


def main(models: Path, out: Path) -> None:
    for name, (head, openings) in CASES.items():
        model = head.from_pretrained(models / name, dtype=torch.float32).eval()
        batch = read_case(models / name)
        parameters = dict(model.named_parameters())
        first = {
            key: next(i for i, marks in enumerate(openings) if any(mark in key for mark in marks))
            for key in parameters
        }
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": 0.1},
                {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=RATE,
            eps=1e-6,
        )
        losses, norms = [], []
        for step in range(NUM_STEPS):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / NUM_STEPS)
            for key, value in parameters.items():
                value.requires_grad_(step >= INTERVAL * first[key])
            optimizer.zero_grad(set_to_none=True)
            loss = model(**batch).loss
            loss.backward()
            losses.append(loss.detach())
            trained = [p for p in parameters.values() if p.requires_grad]
            norms.append(torch.nn.utils.clip_grad_norm_(trained, MAX_NORM))
            optimizer.step()
        found = {key: value.detach().flatten()[:NUM_KEPT].clone() for key, value in parameters.items()}
        found |= {"losses": torch.stack(losses), "norms": torch.stack(norms)}
        file = out / f"unfreezing-{name}.safetensors"
        save_file(found, file)
        print(name, found["losses"].tolist(), found["norms"].tolist(), file.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
