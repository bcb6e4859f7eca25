"""Writes tests/fixtures/golden/sgd.json: ten steps of torch.optim.SGD in float32, with every kind of argument.

Usage: python make_sgd_fixture.py OUTPUT_FILE   (needs torch)
"""

import sys

import torch

from optimizer_fixture import write

CASES = [
    {"weight_decay": 0.0},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "momentum": 0.9},
    {"weight_decay": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"weight_decay": 0.1, "momentum": 0.9, "nesterov": True},
]


def create(case: dict, groups: list) -> torch.optim.Optimizer:
    arguments = {name: value for name, value in case.items() if name != "weight_decay"}
    return torch.optim.SGD(groups, lr=1.0, **arguments)


write(sys.argv[1], {"matrix": (8,), "vector": (8,)}, CASES, create)
