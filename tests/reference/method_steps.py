"""Steps of torch's optimizers on one batch, for the scripts that make tests/fixtures/methods."""

import copy
import json
from pathlib import Path

import torch

NUM_STEPS = 5
OPTIMIZERS = {
    "sgd": lambda values: torch.optim.SGD(values, lr=0.05),
    "adamw": lambda values: torch.optim.AdamW(values, lr=1e-3, eps=1e-6, weight_decay=0.0),
}


def read_case(model: Path) -> dict[str, torch.Tensor]:
    case = json.loads((model / "case.json").read_text())
    batch = {key: torch.tensor(case[key]) for key in ("input_ids", "attention_mask", "labels")}
    if batch["labels"].shape == batch["input_ids"].shape:
        # What a row begins with follows from nothing that is read.
        batch["labels"][:, 0] = -100
    return batch


def steps(model: torch.nn.Module, batch: dict[str, torch.Tensor], name_of) -> dict[str, torch.Tensor]:
    """Losses before each step and the trained tensors after the last one, by optimizer.

    name_of: the name under which a trained parameter is recorded
    """
    found = {}
    for label, optimizer_of in OPTIMIZERS.items():
        own = copy.deepcopy(model).eval()
        trained = {name_of(key): p for key, p in own.named_parameters() if p.requires_grad}
        optimizer = optimizer_of(trained.values())
        losses = []
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            loss = own(**batch).loss
            loss.backward()
            losses.append(loss.detach())
            optimizer.step()
        found[f"{label}.losses"] = torch.stack(losses)
        for key, value in trained.items():
            found[f"{label}.{key}"] = value.detach().contiguous()
    return found
