"""Writes tests/fixtures/golden/adam.json or adamw.json: ten steps of torch.optim.Adam or AdamW in float32.

Usage: python make_adam_fixture.py adam|adamw OUTPUT_FILE   (needs torch)
"""

import sys

import torch

from optimizer_fixture import write

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
CASES = [
    {"config": {}},
    {"config": {"weight_decay": 0.1}},
    {"config": {"weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-3}},
]


def create(case: dict, groups: list) -> torch.optim.Optimizer:
    config = case["config"]
    betas = (config.get("adam_beta1", 0.9), config.get("adam_beta2", 0.999))
    return OPTIMIZERS[sys.argv[1]](groups, lr=1.0, betas=betas, eps=config.get("adam_epsilon", 1e-8))


write(sys.argv[2], {"matrix": (2, 4), "vector": (8,)}, CASES, create, away=1.0)
