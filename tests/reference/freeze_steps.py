"""Steps of torch's AdamW over the weights that LLaMA-Factory's freeze tuning leaves trainable.

    python tests/reference/freeze_steps.py MANIFEST.json

A case has a model, the micro-batches of every step, the settings of the run, its losses and norms, and the
model that it saved. `freeze.test.ts` compares what is printed: one object of JSON a case, with the
names that are trained, the largest relative differences and the weights that changed though they must not.
Needs torch and transformers.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

warnings.filterwarnings("ignore")


def freeze(model, layers: int, modules: list[str], extra: list[str]) -> None:
    """LLaMA-Factory 0.9, model/adapter.py, _setup_freeze_tuning."""
    count = model.config.num_hidden_layers
    ids = range(max(0, count - layers), count) if layers > 0 else range(min(-layers, count))
    trainable = [f".{i}.{'' if module == 'all' else module}" for module in modules for i in ids]
    trainable += extra
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in trainable))


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(b), 1e-30)


for case in json.loads(Path(sys.argv[1]).read_text()):
    model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32)
    freeze(model, case["layers"], case["modules"], case["extra"])
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    settings = case["settings"]
    groups = [
        {"params": [p for p in trained.values() if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in trained.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=settings["learning_rate"], betas=(0.9, 0.999), eps=settings["adam_epsilon"]
    )
    losses, norms = [], []
    for batches in case["steps"]:
        supervised = sum(t >= 0 for batch in batches for row in batch["targets"] for t in row)
        optimizer.zero_grad()
        loss = 0.0
        for batch in batches:
            logits = model(input_ids=torch.tensor(batch["tokens"])).logits
            targets = torch.tensor(batch["targets"])
            part = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="sum"
            )
            (part / supervised).backward()
            loss += part.item()
        losses.append(loss / supervised)
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), settings["max_grad_norm"])
        norms.append(norm.item())
        optimizer.step()
    saved = load_file(Path(case["output"]) / "model.safetensors")
    before = load_file(Path(case["model"]) / "model.safetensors")
    differences = {
        name: ((saved[name] - value).norm() / value.norm()).item()
        for name, value in model.state_dict().items()
        if name in saved
    }
    result = {
        "trained": sorted(trained),
        "loss": max(relative(a, b) for a, b in zip(case["losses"], losses, strict=True)),
        "norm": max(relative(a, b) for a, b in zip(case["norms"], norms, strict=True)),
        "weights": max(differences.values()),
        "moved": sorted(n for n in before if n not in trained and not torch.equal(before[n], saved[n])),
    }
    print(json.dumps(result), flush=True)
