"""Writes tests/fixtures/golden/adafactor.json: ten steps of transformers.optimization.Adafactor in float32.

Usage: python make_adafactor_fixture.py OUTPUT_FILE   (needs torch and transformers)

As transformers' Trainer sets it: without relative_step, and without scale_parameter unless a case asks for it.
"""

import sys

from transformers.optimization import Adafactor

from optimizer_fixture import write

CASES = [
    {"config": {}},
    {"config": {"weight_decay": 0.1}},
    {"config": {"weight_decay": 0.1, "optim_args": "beta1=0.9"}},
    {"config": {"weight_decay": 0.1, "optim_args": "scale_parameter=True, eps2=0.5"}},
    {"config": {"optim_args": "clip_threshold=0.5,decay_rate=-0.6,eps1=1e-3,relative_step=False"}},
]
SHAPES = {"matrix": (3, 5), "stack": (2, 3, 4), "wide": (1, 7), "vector": (8,)}


def create(case: dict, groups: list) -> Adafactor:
    text = case["config"].get("optim_args", "").replace(" ", "")
    given = dict(each.split("=") for each in text.split(",")) if text else {}
    numbers = {name: float(given[name]) for name in ("beta1", "clip_threshold", "decay_rate") if name in given}
    return Adafactor(
        groups,
        lr=1.0,
        eps=(float(given.get("eps1", 1e-30)), float(given.get("eps2", 1e-3))),
        scale_parameter=given.get("scale_parameter") == "True",
        relative_step=False,
        warmup_init=False,
        **numbers,
    )


write(sys.argv[1], SHAPES, CASES, create, away=1.0)
