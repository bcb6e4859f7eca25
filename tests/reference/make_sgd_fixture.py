"""Writes tests/fixtures/golden/sgd.json: ten steps of torch.optim.SGD in float32, with every kind of argument.

Usage: python make_sgd_fixture.py OUTPUT_FILE   (needs torch)

A matrix decays and a vector does not, as transformers groups them.
"""

import json
import sys

import torch

LEARNING_RATES = [0.1 / (1 + step) for step in range(10)]
CASES = [
    {"weight_decay": 0.0},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "momentum": 0.9},
    {"weight_decay": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"weight_decay": 0.1, "momentum": 0.9, "nesterov": True},
]


def run(case: dict, start: dict, gradients: list[dict]) -> list[dict]:
    matrix, vector = (torch.nn.Parameter(start[name].clone()) for name in ("matrix", "vector"))
    decay = case["weight_decay"]
    groups = [{"params": [matrix], "weight_decay": decay}, {"params": [vector], "weight_decay": 0.0}]
    arguments = {name: value for name, value in case.items() if name != "weight_decay"}
    optimizer = torch.optim.SGD(groups, lr=1.0, **arguments)
    after = []
    for rate, gradient in zip(LEARNING_RATES, gradients):
        for group in optimizer.param_groups:
            group["lr"] = rate
        matrix.grad, vector.grad = gradient["matrix"].clone(), gradient["vector"].clone()
        optimizer.step()
        after.append({"matrix": matrix.tolist(), "vector": vector.tolist()})
    return after


torch.manual_seed(0)
draw = lambda: {"matrix": torch.randn(8), "vector": torch.randn(8)}
start = draw()
gradients = [draw() for _ in LEARNING_RATES]
lists = lambda each: {name: tensor.tolist() for name, tensor in each.items()}
fixture = {
    "torch": torch.__version__,
    "learning_rates": LEARNING_RATES,
    "start": lists(start),
    "gradients": [lists(each) for each in gradients],
    "cases": [{**case, "after": run(case, start, gradients)} for case in CASES],
}
with open(sys.argv[1], "w") as file:
    json.dump(fixture, file)
