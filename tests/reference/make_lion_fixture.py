"""Writes tests/fixtures/golden/lion.json: ten steps of Lion in float32.

Usage: python make_lion_fixture.py OUTPUT_FILE   (needs numpy)

Algorithm 2 of Chen et al. 2023 (arXiv 2302.06675), written out; decay first, as bitsandbytes has it. A matrix decays
and a vector does not, as transformers groups them.
"""

import json
import sys

import numpy as np

LEARNING_RATES = [0.01 / (1 + step) for step in range(10)]
SHAPES = {"matrix": (2, 4), "vector": (8,)}
CASES = [
    {"config": {}},
    {"config": {"weight_decay": 0.1}},
    {"config": {"weight_decay": 0.1, "adam_beta1": 0.95, "adam_beta2": 0.98}},
]

f32 = np.float32


def run(config: dict, start: dict, gradients: list) -> list:
    beta1, beta2 = config.get("adam_beta1", 0.9), config.get("adam_beta2", 0.999)
    weights = {name: value.copy() for name, value in start.items()}
    momentum = {name: np.zeros_like(value) for name, value in start.items()}
    after = []
    for rate, gradient in zip(LEARNING_RATES, gradients):
        for name in weights:
            decay = 0.0 if name == "vector" else config.get("weight_decay", 0.0)
            m, g = momentum[name], gradient[name]
            direction = np.sign(f32(beta1) * m + f32(1 - beta1) * g)
            weights[name] = weights[name] * f32(1 - rate * decay) - f32(rate) * direction
            momentum[name] = f32(beta2) * m + f32(1 - beta2) * g
        after.append(lists(weights))
    return after


def lists(tensors: dict) -> dict:
    return {name: value.flatten().tolist() for name, value in tensors.items()}


random = np.random.default_rng(0)
draw = lambda: {name: random.standard_normal(shape).astype(f32) for name, shape in SHAPES.items()}
start = draw()
gradients = [draw() for _ in LEARNING_RATES]
fixture = {
    "numpy": np.__version__,
    "learning_rates": LEARNING_RATES,
    "start": lists(start),
    "gradients": [lists(each) for each in gradients],
    "cases": [{**case, "after": run(case["config"], start, gradients)} for case in CASES],
}
with open(sys.argv[1], "w") as file:
    json.dump(fixture, file)
